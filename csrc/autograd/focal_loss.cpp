#include <torch/library.h>

#include "arguments.h"
#include "autograd/node.h"
#include "checks.h"

namespace alwa_d2 {
namespace {

using Result = std::tuple<at::Tensor, at::Tensor>;
using ResultAhead = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>;

Result below_autograd(const FocalArguments& args) {
  static const auto op = find_op<FocalEntry::Signature<Result>>("alwa_d2::sigmoid_focal_loss");
  return call_below(op, args);
}

ResultAhead loss_and_gradients(const FocalArguments& args) {
  using Signature = FocalEntry::Signature<ResultAhead>;
  static const auto op = find_op<Signature>("alwa_d2::_sigmoid_focal_loss_ahead");
  return call_below(op, args);
}

std::vector<at::Tensor> backward_op(const at::Tensor& grad, const FocalArguments& args) {
  using Signature = FocalEntry::BackwardSignature<std::vector<at::Tensor>>;
  static const auto op = find_op<Signature>("alwa_d2::sigmoid_focal_loss_backward");
  return call_backward(op, grad, args);
}

struct KeptArguments {
  size_t gradients;  // as many as levels
  double alpha, gamma, factor;
};

struct SigmoidFocalLoss : torch::autograd::Function<SigmoidFocalLoss> {
  // The logits stand apart, for autograd to see them: the only tensors with gradients.
  static variable_list forward(
      AutogradContext* ctx, at::TensorList logits, const FocalArguments& args) {
    variable_list tensors = dense_tensors(logits, {args.labels}, args.scale);
    at::Tensor loss, stats;
    variable_list gradients;
    if (computes_gradient_ahead(tensors)) {
      std::tie(loss, stats, gradients) = loss_and_gradients(args);
    } else {
      std::tie(loss, stats) = below_autograd(args);
    }
    ctx->mark_non_differentiable({stats});
    Kept<KeptArguments>::save(
        ctx, std::move(tensors), {logits.size(), args.alpha, args.gamma, args.factor},
        std::move(gradients));
    return {loss, stats};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return Kept<KeptArguments>::gradients(ctx, grads[0], &gradients_of_logits);
  }

 private:
  static variable_list gradients_of_logits(
      const at::Tensor& grad, const variable_list& saved, const KeptArguments& kept) {
    const size_t levels = kept.gradients;
    const auto scale = tensor_after(saved, levels + 1);
    const at::TensorList logits(saved.data(), levels);
    return backward_op(grad, {logits, saved[levels], kept.alpha, kept.gamma, scale, kept.factor});
  }
};

Result sigmoid_focal_loss_autograd(const FocalArguments& args) {
  check_devices(args);
  check_tangents(args.logits, args.scale);
  if (!needs_gradient(args.logits)) {
    return below_autograd(args);
  }
  variable_list results = SigmoidFocalLoss::apply(args.logits, args);
  return {std::move(results[0]), std::move(results[1])};
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) {
  m.impl("sigmoid_focal_loss", &FocalEntry::call<&sigmoid_focal_loss_autograd>);
}

}  // namespace
}  // namespace alwa_d2
