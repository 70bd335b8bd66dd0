#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "launch_cuda.cuh"

namespace alwa_d2 {
namespace {

// The foreground anchors of a batch: i counts anchors over all images.
template <typename T, typename scalar_t, typename Loss>
struct Foreground {
  Levels<const scalar_t> deltas;
  const T* anchors;     // (R, 4)
  const T* gt_boxes;    // (N, R, 4)
  const bool* fg_mask;  // (N, R)
  int64_t anchors_per_image;
  BoxTransform<T> transform;
  Loss loss;

  __device__ PairLoss<T> operator()(int64_t i) const {
    const int64_t image = i / anchors_per_image, r = i % anchors_per_image;
    const Level<const scalar_t>& level = deltas.of_anchor(r);
    T delta[4];
    load(level.values(image, r), level.stride_value, delta);
    return anchor_loss(loss, transform, anchors + 4 * r, delta, gt_boxes + 4 * i);
  }
};

template <typename F>
struct AddForeground {
  F foreground;

  __device__ void operator()(int64_t i, Stats& stats) const {
    if (foreground.fg_mask[i]) {
      stats.add(foreground(i).value);
    }
  }
};

template <typename T, typename scalar_t, typename F>
struct StoreForegroundGradients {
  F foreground;
  CommonFactor<T> common;
  Levels<scalar_t> out;  // zero

  __device__ void operator()(int64_t i) const {
    if (foreground.fg_mask[i]) {
      const int64_t image = i / foreground.anchors_per_image;
      const int64_t r = i % foreground.anchors_per_image;
      const Level<scalar_t>& level = out.of_anchor(r);
      scalar_t* values = level.values(image, r);
      const PairLoss<T> pair = foreground(i);
      const T factor = common();
      for (int j = 0; j < 4; ++j) {
        values[j * level.stride_value] = static_cast<scalar_t>(factor * pair.grad[j]);
      }
    }
  }
};

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cuda(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& fg_mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  const c10::cuda::CUDAGuard guard(fg_mask.device());
  const at::Tensor mask = fg_mask.contiguous();
  std::tuple<at::Tensor, at::Tensor> result;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto dtype = c10::CppTypeToScalarType<T>::value;
        const at::Tensor a = anchors.to(dtype).contiguous();
        const at::Tensor gt = gt_boxes.to(dtype).contiguous();
        with_kind<T>(kind, beta, eps, [&](auto loss) {
          using F = Foreground<T, scalar_t, decltype(loss)>;
          const F foreground{
              make_levels<const scalar_t>(deltas, shape),
              a.const_data_ptr<T>(),
              gt.const_data_ptr<T>(),
              mask.const_data_ptr<bool>(),
              shape.anchors,
              make_transform<T>(box_weights),
              loss};
          result =
              sum_cuda<T>(mask.numel(), deltas[0], scale, factor, AddForeground<F>{foreground});
        });
      });
  return result;
}

std::vector<at::Tensor> dense_box_loss_backward_cuda(
    const at::Tensor& grad, const at::Tensor& anchors, at::TensorList deltas,
    const at::Tensor& gt_boxes, const at::Tensor& fg_mask, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale_, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale_);
  check_grad(grad, {}, reduced_dtype(deltas[0]), deltas[0]);
  const c10::cuda::CUDAGuard guard(fg_mask.device());
  const at::Tensor mask = fg_mask.contiguous();
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  std::vector<at::Tensor> result;
  for (const at::Tensor& level : deltas) {
    result.push_back(at::zeros_like(level));
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto dtype = c10::CppTypeToScalarType<T>::value;
        const at::Tensor a = anchors.to(dtype).contiguous();
        const at::Tensor gt = gt_boxes.to(dtype).contiguous();
        const auto out = make_levels<scalar_t>(result, shape);
        const CommonFactor<T> common{grad.const_data_ptr<T>(), pointer(scale), factor};
        with_kind<T>(kind, beta, eps, [&](auto loss) {
          using F = Foreground<T, scalar_t, decltype(loss)>;
          const F foreground{
              make_levels<const scalar_t>(deltas, shape),
              a.const_data_ptr<T>(),
              gt.const_data_ptr<T>(),
              mask.const_data_ptr<bool>(),
              shape.anchors,
              make_transform<T>(box_weights),
              loss};
          for_each_cuda(
              mask.numel(), StoreForegroundGradients<T, scalar_t, F>{foreground, common, out});
        });
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("dense_box_loss", &dense_box_loss_cuda);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cuda);
}

}  // namespace
}  // namespace alwa_d2
