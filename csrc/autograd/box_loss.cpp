#include <torch/library.h>

#include "arguments.h"
#include "autograd/node.h"
#include "checks.h"

namespace alwa_d2 {
namespace {

at::Tensor below_autograd(const BoxArguments& args) {
  static const auto op = find_op<BoxEntry::Signature<at::Tensor>>("alwa_d2::box_loss");
  return call_below(op, args);
}

std::tuple<at::Tensor, at::Tensor> loss_and_gradient(const BoxArguments& args) {
  using Result = std::tuple<at::Tensor, at::Tensor>;
  static const auto op = find_op<BoxEntry::Signature<Result>>("alwa_d2::_box_loss_ahead");
  return call_below(op, args);
}

at::Tensor backward_op(const at::Tensor& grad, const BoxArguments& args) {
  using Signature = BoxEntry::BackwardSignature<at::Tensor>;
  static const auto op = find_op<Signature>("alwa_d2::box_loss_backward");
  return call_backward(op, grad, args);
}

struct KeptArguments {
  size_t gradients;  // 2: of pred and target
  std::string kind, reduction;
  double beta, eps;
};

struct BoxLoss : torch::autograd::Function<BoxLoss> {
  // The tensors stand apart, for autograd to see them.
  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& pred, const at::Tensor& target,
      const BoxArguments& args) {
    at::Tensor loss;
    variable_list gradients;
    // What comes in for losses of pairs is not 1, as a rule.
    if (args.reduction != "none" && !target.requires_grad() &&
        computes_gradient_ahead({pred, target})) {
      gradients.emplace_back();
      std::tie(loss, gradients[0]) = loss_and_gradient(args);
    } else {
      loss = below_autograd(args);
    }
    Kept<KeptArguments>::save(
        ctx, {pred, target},
        {2, std::string(args.kind), std::string(args.reduction), args.beta, args.eps},
        std::move(gradients));
    return {loss};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto compute = [&](const at::Tensor& grad, const variable_list& saved,
                             const KeptArguments& kept) {
      variable_list result(kept.gradients);
      for (size_t i = 0; i < kept.gradients; ++i) {
        if (ctx->needs_input_grad(i)) {  // every kind is symmetric in its two boxes
          result[i] = backward_op(
              grad, {saved[i], saved[1 - i], kept.kind, kept.reduction, kept.beta, kept.eps});
        }
      }
      return result;
    };
    return Kept<KeptArguments>::gradients(ctx, grads[0], compute);
  }
};

at::Tensor box_loss_autograd(const BoxArguments& args) {
  check_devices(args);
  check_tangents(args.pred, args.target);
  if (!needs_gradient({args.pred, args.target})) {
    return below_autograd(args);
  }
  return BoxLoss::apply(args.pred, args.target, args)[0];
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) {
  m.impl("box_loss", &BoxEntry::call<&box_loss_autograd>);
}

}  // namespace
}  // namespace alwa_d2
