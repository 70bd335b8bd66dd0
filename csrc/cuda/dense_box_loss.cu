#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

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
      foreground.store_gradient(i, foreground(i), common(), out);
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
        const auto sum = [&](const auto& foreground) {
          using F = std::decay_t<decltype(foreground)>;
          result =
              sum_cuda<T>(mask.numel(), deltas[0], scale, factor, AddForeground<F>{foreground});
        };
        with_foreground<scalar_t>(
            anchors, deltas, gt_boxes, mask, kind, box_weights, beta, eps, shape, sum);
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
  std::vector<at::Tensor> result = zeros_like(deltas);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto out = make_levels<scalar_t>(result, shape);
        const CommonFactor<T> common{grad.const_data_ptr<T>(), pointer(scale), factor};
        const auto store = [&](const auto& foreground) {
          using F = std::decay_t<decltype(foreground)>;
          for_each_cuda(
              mask.numel(), StoreForegroundGradients<T, scalar_t, F>{foreground, common, out});
        };
        with_foreground<scalar_t>(
            anchors, deltas, gt_boxes, mask, kind, box_weights, beta, eps, shape, store);
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("dense_box_loss", &dense_box_loss_cuda);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cuda);
}

}  // namespace
}  // namespace alwa_d2
