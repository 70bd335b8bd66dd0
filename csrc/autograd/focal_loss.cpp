#include <torch/library.h>

#include "autograd/node.h"

namespace alwa_d2 {
namespace {

using Forward = std::tuple<at::Tensor, at::Tensor>(
    at::TensorList, const at::Tensor&, double, double, const std::optional<at::Tensor>&, double);
using Ahead = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>>(
    at::TensorList, const at::Tensor&, double, double, const std::optional<at::Tensor>&, double);
using Backward = std::vector<at::Tensor>(
    const at::Tensor&, at::TensorList, const at::Tensor&, double, double,
    const std::optional<at::Tensor>&, double);

std::tuple<at::Tensor, at::Tensor> below_autograd(
    at::TensorList logits, const at::Tensor& labels, double alpha, double gamma,
    const std::optional<at::Tensor>& scale, double factor) {
  static const auto op = find_op<Forward>("alwa_d2::sigmoid_focal_loss");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(logits, labels, alpha, gamma, scale, factor);
}

struct Arguments {
  size_t gradients;  // as many as levels
  double alpha, gamma, factor;
};

struct SigmoidFocalLoss : torch::autograd::Function<SigmoidFocalLoss> {
  static variable_list forward(
      AutogradContext* ctx, at::TensorList logits, const at::Tensor& labels, double alpha,
      double gamma, const std::optional<at::Tensor>& scale, double factor) {
    variable_list tensors = dense_tensors(logits, {labels}, scale);
    at::Tensor loss, stats;
    variable_list gradients;
    if (computes_gradient_ahead(tensors)) {
      static const auto op = find_op<Ahead>("alwa_d2::_sigmoid_focal_loss_ahead");
      const at::AutoDispatchBelowADInplaceOrView guard;
      std::tie(loss, stats, gradients) = op.call(logits, labels, alpha, gamma, scale, factor);
    } else {
      std::tie(loss, stats) = below_autograd(logits, labels, alpha, gamma, scale, factor);
    }
    ctx->mark_non_differentiable({stats});
    Kept<Arguments>::save(
        ctx, std::move(tensors), {logits.size(), alpha, gamma, factor}, std::move(gradients));
    return {loss, stats};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return Kept<Arguments>::gradients(ctx, grads[0], 0, 5, &gradients_of_logits);
  }

 private:
  static variable_list gradients_of_logits(
      const at::Tensor& grad, const variable_list& saved, const Arguments& arguments) {
    static const auto op = find_op<Backward>("alwa_d2::sigmoid_focal_loss_backward");
    const auto& [levels, alpha, gamma, factor] = arguments;
    const auto scale = tensor_after(saved, levels + 1);
    const at::TensorList logits(saved.data(), levels);
    return call_backward(op, grad, logits, saved[levels], alpha, gamma, scale, factor);
  }
};

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_autograd(
    at::TensorList logits, const at::Tensor& labels, double alpha, double gamma,
    const std::optional<at::Tensor>& scale, double factor) {
  if (!needs_gradient(logits)) {
    return below_autograd(logits, labels, alpha, gamma, scale, factor);
  }
  variable_list results = SigmoidFocalLoss::apply(logits, labels, alpha, gamma, scale, factor);
  return {std::move(results[0]), std::move(results[1])};
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) {
  m.impl("sigmoid_focal_loss", &sigmoid_focal_loss_autograd);
}

}  // namespace
}  // namespace alwa_d2
