#include <torch/library.h>

#include "autograd/node.h"

namespace alwa_d2 {
namespace {

using Forward = std::tuple<at::Tensor, at::Tensor>(
    const at::Tensor&, at::TensorList, const at::Tensor&, const at::Tensor&, std::optional<int64_t>,
    c10::string_view, at::ArrayRef<double>, double, double, const std::optional<at::Tensor>&,
    double);
using Ahead = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>(
    const at::Tensor&, at::TensorList, const at::Tensor&, const at::Tensor&, std::optional<int64_t>,
    c10::string_view, at::ArrayRef<double>, double, double, const std::optional<at::Tensor>&,
    double);
using Backward = std::vector<at::Tensor>(
    const at::Tensor&, const at::Tensor&, at::TensorList, const at::Tensor&, const at::Tensor&,
    std::optional<int64_t>, c10::string_view, at::ArrayRef<double>, double, double,
    const std::optional<at::Tensor>&, double);

std::tuple<at::Tensor, at::Tensor> below_autograd(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  static const auto op = find_op<Forward>("alwa_d2::dense_box_loss");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(
      anchors, deltas, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale, factor);
}

struct Arguments {
  size_t gradients;  // as many as levels
  std::optional<int64_t> num_classes;
  std::string kind;
  std::vector<double> box_weights;
  double beta, eps, factor;
};

struct DenseBoxLoss : torch::autograd::Function<DenseBoxLoss> {
  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& anchors, at::TensorList deltas,
      const at::Tensor& gt_boxes, const at::Tensor& labels, std::optional<int64_t> num_classes,
      c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps,
      const std::optional<at::Tensor>& scale, double factor) {
    variable_list tensors = dense_tensors(deltas, {anchors, gt_boxes, labels}, scale);
    at::Tensor loss, stats;
    variable_list gradients;
    if (computes_gradient_ahead(tensors)) {
      static const auto op = find_op<Ahead>("alwa_d2::_dense_box_loss_ahead");
      const at::AutoDispatchBelowADInplaceOrView guard;
      std::tie(loss, stats, gradients) = op.call(
          anchors, deltas, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale,
          factor);
    } else {
      std::tie(loss, stats) = below_autograd(
          anchors, deltas, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale,
          factor);
    }
    ctx->mark_non_differentiable({stats});
    Kept<Arguments>::save(
        ctx, std::move(tensors),
        {deltas.size(), num_classes, std::string(kind), box_weights.vec(), beta, eps, factor},
        std::move(gradients));
    return {loss, stats};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return Kept<Arguments>::gradients(ctx, grads[0], 1, 9, &gradients_of_deltas);
  }

 private:
  static variable_list gradients_of_deltas(
      const at::Tensor& grad, const variable_list& saved, const Arguments& arguments) {
    static const auto op = find_op<Backward>("alwa_d2::dense_box_loss_backward");
    const auto& [levels, num_classes, kind, box_weights, beta, eps, factor] = arguments;
    const auto scale = tensor_after(saved, levels + 3);
    const at::TensorList deltas(saved.data(), levels);
    return call_backward(
        op, grad, saved[levels], deltas, saved[levels + 1], saved[levels + 2], num_classes, kind,
        box_weights, beta, eps, scale, factor);
  }
};

std::tuple<at::Tensor, at::Tensor> dense_box_loss_autograd(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  if (!needs_gradient(deltas)) {
    return below_autograd(
        anchors, deltas, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale,
        factor);
  }
  variable_list results = DenseBoxLoss::apply(
      anchors, deltas, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale, factor);
  return {std::move(results[0]), std::move(results[1])};
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) { m.impl("dense_box_loss", &dense_box_loss_autograd); }

}  // namespace
}  // namespace alwa_d2
