#include <torch/library.h>

#include "arguments.h"
#include "autograd/node.h"
#include "checks.h"

namespace alwa_d2 {
namespace {

using Result = std::tuple<at::Tensor, at::Tensor>;
using ResultAhead = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>;

Result below_autograd(const DenseBoxArguments& args) {
  static const auto op = find_op<DenseBoxEntry::Signature<Result>>("alwa_d2::dense_box_loss");
  return call_below(op, args);
}

ResultAhead loss_and_gradients(const DenseBoxArguments& args) {
  using Signature = DenseBoxEntry::Signature<ResultAhead>;
  static const auto op = find_op<Signature>("alwa_d2::_dense_box_loss_ahead");
  return call_below(op, args);
}

std::vector<at::Tensor> backward_op(const at::Tensor& grad, const DenseBoxArguments& args) {
  using Signature = DenseBoxEntry::BackwardSignature<std::vector<at::Tensor>>;
  static const auto op = find_op<Signature>("alwa_d2::dense_box_loss_backward");
  return call_backward(op, grad, args);
}

struct KeptArguments {
  size_t gradients;  // as many as levels
  std::optional<int64_t> num_classes;
  std::string kind;
  std::vector<double> box_weights;
  double beta, eps, factor;
};

struct DenseBoxLoss : torch::autograd::Function<DenseBoxLoss> {
  // The deltas stand apart, for autograd to see them: the only tensors with gradients.
  static variable_list forward(
      AutogradContext* ctx, at::TensorList deltas, const DenseBoxArguments& args) {
    variable_list tensors =
        dense_tensors(deltas, {args.anchors, args.gt_boxes, args.labels}, args.scale);
    at::Tensor loss, stats;
    variable_list gradients;
    if (computes_gradient_ahead(tensors)) {
      std::tie(loss, stats, gradients) = loss_and_gradients(args);
    } else {
      std::tie(loss, stats) = below_autograd(args);
    }
    ctx->mark_non_differentiable({stats});
    Kept<KeptArguments>::save(
        ctx, std::move(tensors),
        {deltas.size(), args.num_classes, std::string(args.kind), args.box_weights.vec(), args.beta,
         args.eps, args.factor},
        std::move(gradients));
    return {loss, stats};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return Kept<KeptArguments>::gradients(ctx, grads[0], &gradients_of_deltas);
  }

 private:
  static variable_list gradients_of_deltas(
      const at::Tensor& grad, const variable_list& saved, const KeptArguments& kept) {
    const size_t levels = kept.gradients;
    const auto scale = tensor_after(saved, levels + 3);
    const at::TensorList deltas(saved.data(), levels);
    return backward_op(
        grad,
        {saved[levels], deltas, saved[levels + 1], saved[levels + 2], kept.num_classes, kept.kind,
         kept.box_weights, kept.beta, kept.eps, scale, kept.factor});
  }
};

Result dense_box_loss_autograd(const DenseBoxArguments& args) {
  check_devices(args);
  check_tangents(args.anchors, args.deltas, args.gt_boxes, args.scale);
  if (!needs_gradient(args.deltas)) {
    return below_autograd(args);
  }
  variable_list results = DenseBoxLoss::apply(args.deltas, args);
  return {std::move(results[0]), std::move(results[1])};
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) {
  m.impl("dense_box_loss", &DenseBoxEntry::call<&dense_box_loss_autograd>);
}

}  // namespace
}  // namespace alwa_d2
