#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/macros/Macros.h>
#include <torch/library.h>

#include "focal_loss.h"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

// The anchors of a batch: i counts them over all images. A thread takes an anchor and reads its K
// logits one by one, so that the threads of a warp read side by side in no layout: simple, and not
// yet fast.
template <typename T, typename scalar_t>
struct AddAnchors {
  Levels<const scalar_t> logits;
  const int64_t* labels;  // (N, R)
  DenseShape shape;
  Focal<T> focal;

  __device__ void operator()(int64_t i, Stats& stats) const {
    const int64_t label = labels[i];
    CUDA_KERNEL_ASSERT(-1 <= label && label <= shape.values);
    if (label >= 0) {
      const int64_t r = i % shape.anchors;
      const Level<const scalar_t>& level = logits.of_anchor(r);
      const scalar_t* x = level.values(i / shape.anchors, r);
      T sum = 0;
      for (int64_t k = 0; k < shape.values; ++k) {
        sum += focal(static_cast<T>(x[k * level.stride_value]), k == label).value;
      }
      stats.add(sum);
    }
  }
};

template <typename T, typename scalar_t>
struct StoreGradients {
  Levels<const scalar_t> logits;
  const int64_t* labels;  // (N, R)
  DenseShape shape;
  Focal<T> focal;
  CommonFactor<T> common;
  Levels<scalar_t> out;

  __device__ void operator()(int64_t i) const {
    const int64_t label = labels[i];
    const int64_t image = i / shape.anchors, r = i % shape.anchors;
    const Level<const scalar_t>& level = logits.of_anchor(r);
    const Level<scalar_t>& out_level = out.of_anchor(r);
    const scalar_t* x = level.values(image, r);
    scalar_t* dx = out_level.values(image, r);
    const T factor = common();
    for (int64_t k = 0; k < shape.values; ++k) {
      const T derivative = focal(static_cast<T>(x[k * level.stride_value]), k == label).slope;
      dx[k * out_level.stride_value] =
          static_cast<scalar_t>(label < 0 ? T(0) : factor * derivative);
    }
  }
};

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_cuda(
    at::TensorList logits, const at::Tensor& labels_, double alpha, double gamma,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_focal(logits, labels_, gamma, scale);
  const c10::cuda::CUDAGuard guard(labels_.device());
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  std::tuple<at::Tensor, at::Tensor> result;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, logits[0].scalar_type(), "sigmoid_focal_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const AddAnchors<T, scalar_t> add{
            make_levels<const scalar_t>(logits, shape), labels.const_data_ptr<int64_t>(), shape,
            Focal<T>(alpha, gamma)};
        result = sum_cuda<T>(labels.numel(), logits[0], scale, factor, add);
      });
  return result;
}

std::vector<at::Tensor> sigmoid_focal_loss_backward_cuda(
    const at::Tensor& grad, at::TensorList logits, const at::Tensor& labels_, double alpha,
    double gamma, const std::optional<at::Tensor>& scale_, double factor) {
  const DenseShape shape = check_focal(logits, labels_, gamma, scale_);
  check_grad(grad, {}, reduced_dtype(logits[0]), logits[0]);
  const c10::cuda::CUDAGuard guard(labels_.device());
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  std::vector<at::Tensor> result = empty_like(logits);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, logits[0].scalar_type(), "sigmoid_focal_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const StoreGradients<T, scalar_t> store{
            make_levels<const scalar_t>(logits, shape),
            labels.const_data_ptr<int64_t>(),
            shape,
            Focal<T>(alpha, gamma),
            {grad.const_data_ptr<T>(), pointer(scale), factor},
            make_levels<scalar_t>(result, shape)};
        for_each_cuda(labels.numel(), store);
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("sigmoid_focal_loss", &sigmoid_focal_loss_cuda);
  m.impl("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward_cuda);
}

}  // namespace
}  // namespace alwa_d2
