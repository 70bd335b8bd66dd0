#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "cpu/pieces.h"

namespace alwa_d2 {
namespace {

// One pass over the foreground: statistics, and gradients times `factor` where there are tensors
// for them, which are zero.
Stats dense_box_pass(
    const at::Tensor& anchors, at::TensorList deltas, at::TensorList gradients,
    const at::Tensor& gt_boxes, const at::Tensor& labels_, std::optional<int64_t> num_classes,
    c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps, const DenseShape& shape,
    double factor) {
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  const IsForeground is_foreground(labels, num_classes);
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto out = make_levels<scalar_t>(gradients, shape);
        const auto run = [&](const auto& losses) {
          stats = sum_over_pieces(labels.numel(), [&](int64_t begin, int64_t end) {
            Stats part;
            for (int64_t i = begin; i < end; ++i) {
              if (is_foreground(i)) {
                const PairLoss<T> loss = losses(i);
                part.add(loss.value);
                if (!gradients.empty()) {
                  losses.store_gradient(i, loss, static_cast<T>(factor), out);
                }
              }
            }
            return part;
          });
        };
        with_anchor_losses<scalar_t>(
            anchors, deltas, gt_boxes, kind, box_weights, beta, eps, shape, run);
      });
  return stats;
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, labels, num_classes, box_weights, scale);
  const Stats stats = dense_box_pass(
      anchors, deltas, {}, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, shape, 1);
  return scaled_sum(stats, deltas[0], scale_value(scale, factor));
}

std::vector<at::Tensor> dense_box_loss_backward_cpu(
    const at::Tensor& grad, const at::Tensor& anchors, at::TensorList deltas,
    const at::Tensor& gt_boxes, const at::Tensor& labels, std::optional<int64_t> num_classes,
    c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, labels, num_classes, box_weights, scale);
  check_grad(grad, {}, reduced_dtype(deltas[0]), deltas[0]);
  std::vector<at::Tensor> result = zeros_like(deltas);
  const double common = grad.item<double>() * scale_value(scale, factor);
  dense_box_pass(
      anchors, deltas, result, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, shape, common);
  return result;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> dense_box_loss_ahead_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, labels, num_classes, box_weights, scale);
  std::vector<at::Tensor> gradients = zeros_like(deltas);
  const double common = scale_value(scale, factor);
  const Stats stats = dense_box_pass(
      anchors, deltas, gradients, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, shape, common);
  auto [loss, values] = scaled_sum(stats, deltas[0], common);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("dense_box_loss", &dense_box_loss_cpu);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cpu);
  m.impl("_dense_box_loss_ahead", &dense_box_loss_ahead_cpu);
}

}  // namespace
}  // namespace alwa_d2
