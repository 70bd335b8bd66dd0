#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "pieces_cpu.h"

namespace alwa_d2 {
namespace {

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& fg_mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  const at::Tensor mask = fg_mask.contiguous();  // (N, R)
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss", [&] {
        const auto sum = [&](const auto& foreground) {
          stats = sum_over_pieces(mask.numel(), [&](int64_t begin, int64_t end) {
            Stats part;
            for (int64_t i = begin; i < end; ++i) {
              if (foreground.fg_mask[i]) {
                part.add(foreground(i).value);
              }
            }
            return part;
          });
        };
        with_foreground<scalar_t>(
            anchors, deltas, gt_boxes, mask, kind, box_weights, beta, eps, shape, sum);
      });
  return scaled_sum(stats, deltas[0], scale, factor);
}

std::vector<at::Tensor> dense_box_loss_backward_cpu(
    const at::Tensor& grad, const at::Tensor& anchors, at::TensorList deltas,
    const at::Tensor& gt_boxes, const at::Tensor& fg_mask, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  check_grad(grad, {}, reduced_dtype(deltas[0]), deltas[0]);
  const at::Tensor mask = fg_mask.contiguous();  // (N, R)
  std::vector<at::Tensor> result;
  for (const at::Tensor& level : deltas) {
    result.push_back(at::zeros_like(level));
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto out = make_levels<scalar_t>(result, shape);
        const T common = static_cast<T>(grad.item<double>() * scale_value(scale, factor));
        const auto store = [&](const auto& foreground) {
          for_each_piece(mask.numel(), [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              if (foreground.fg_mask[i]) {
                foreground.store_gradient(i, common, out);
              }
            }
          });
        };
        with_foreground<scalar_t>(
            anchors, deltas, gt_boxes, mask, kind, box_weights, beta, eps, shape, store);
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("dense_box_loss", &dense_box_loss_cpu);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cpu);
}

}  // namespace
}  // namespace alwa_d2
