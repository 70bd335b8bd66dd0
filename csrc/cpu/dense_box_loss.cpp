#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include <cstring>

#include "box_loss.h"
#include "cpu/pieces.h"

namespace alwa_d2 {
namespace {

// Runs f(i) for the i in [begin, end) whose mask is set: few as a rule, so that many are looked at
// together.
template <typename F>
void for_each_set(const bool* mask, int64_t begin, int64_t end, const F& f) {
  uint64_t words[8];
  constexpr int64_t kStep = sizeof(words);
  for (int64_t i = begin; i < end; i += kStep) {
    const int64_t stop = std::min(end, i + kStep);
    uint64_t any = 0;
    std::memset(words, 0, sizeof(words));
    std::memcpy(words, mask + i, stop - i);
    for (const uint64_t word : words) {
      any |= word;
    }
    for (int64_t j = i; j < stop && any != 0; ++j) {
      if (mask[j]) {
        f(j);
      }
    }
  }
}

// One pass over the foreground: statistics, and gradients times `factor` where there are tensors
// for them, which are zero.
Stats dense_box_pass(
    const at::Tensor& anchors, at::TensorList deltas, at::TensorList gradients,
    const at::Tensor& gt_boxes, const at::Tensor& fg_mask, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps, const DenseShape& shape,
    double factor) {
  const at::Tensor mask = fg_mask.contiguous();  // (N, R)
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto out = make_levels<scalar_t>(gradients, shape);
        const auto run = [&](const auto& foreground) {
          stats = sum_over_pieces(mask.numel(), [&](int64_t begin, int64_t end) {
            Stats part;
            for_each_set(foreground.fg_mask, begin, end, [&](int64_t i) {
              const PairLoss<T> loss = foreground(i);
              part.add(loss.value);
              if (!gradients.empty()) {
                foreground.store_gradient(i, loss, static_cast<T>(factor), out);
              }
            });
            return part;
          });
        };
        with_foreground<scalar_t>(
            anchors, deltas, gt_boxes, mask, kind, box_weights, beta, eps, shape, run);
      });
  return stats;
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& fg_mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  const Stats stats = dense_box_pass(
      anchors, deltas, {}, gt_boxes, fg_mask, kind, box_weights, beta, eps, shape, 1);
  return scaled_sum(stats, deltas[0], scale_value(scale, factor));
}

std::vector<at::Tensor> dense_box_loss_backward_cpu(
    const at::Tensor& grad, const at::Tensor& anchors, at::TensorList deltas,
    const at::Tensor& gt_boxes, const at::Tensor& fg_mask, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  check_grad(grad, {}, reduced_dtype(deltas[0]), deltas[0]);
  std::vector<at::Tensor> result = zeros_like(deltas);
  const double common = grad.item<double>() * scale_value(scale, factor);
  dense_box_pass(
      anchors, deltas, result, gt_boxes, fg_mask, kind, box_weights, beta, eps, shape, common);
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("dense_box_loss", &dense_box_loss_cpu);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cpu);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> dense_box_loss_with_gradient_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& fg_mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  std::vector<at::Tensor> gradients = zeros_like(deltas);
  const double common = scale_value(scale, factor);
  const Stats stats = dense_box_pass(
      anchors, deltas, gradients, gt_boxes, fg_mask, kind, box_weights, beta, eps, shape, common);
  auto [loss, values] = scaled_sum(stats, deltas[0], common);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

}  // namespace alwa_d2
