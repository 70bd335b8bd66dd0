#include <torch/library.h>

#include "autograd/node.h"

namespace alwa_d2 {
namespace {

using Forward = at::Tensor(
    const at::Tensor&, const at::Tensor&, c10::string_view, c10::string_view, double, double);
using Ahead = std::tuple<at::Tensor, at::Tensor>(
    const at::Tensor&, const at::Tensor&, c10::string_view, c10::string_view, double, double);
using Backward = at::Tensor(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, c10::string_view, c10::string_view,
    double, double);

at::Tensor below_autograd(
    const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
    c10::string_view reduction, double beta, double eps) {
  static const auto op = find_op<Forward>("alwa_d2::box_loss");
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(pred, target, kind, reduction, beta, eps);
}

struct Arguments {
  size_t gradients;  // 2: of pred and target
  std::string kind, reduction;
  double beta, eps;
};

struct BoxLoss : torch::autograd::Function<BoxLoss> {
  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
      c10::string_view reduction, double beta, double eps) {
    at::Tensor loss;
    variable_list gradients;
    // What comes in for losses of pairs is not 1, as a rule.
    if (reduction != "none" && !target.requires_grad() && computes_gradient_ahead({pred, target})) {
      static const auto op = find_op<Ahead>("alwa_d2::_box_loss_ahead");
      const at::AutoDispatchBelowADInplaceOrView guard;
      gradients.emplace_back();
      std::tie(loss, gradients[0]) = op.call(pred, target, kind, reduction, beta, eps);
    } else {
      loss = below_autograd(pred, target, kind, reduction, beta, eps);
    }
    Kept<Arguments>::save(
        ctx, {pred, target}, {2, std::string(kind), std::string(reduction), beta, eps},
        std::move(gradients));
    return {loss};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static const auto op = find_op<Backward>("alwa_d2::box_loss_backward");
    const auto compute = [&](const at::Tensor& grad, const variable_list& saved,
                             const Arguments& arguments) {
      const auto& [gradients, kind, reduction, beta, eps] = arguments;
      variable_list result(gradients);
      for (size_t i = 0; i < gradients; ++i) {
        if (ctx->needs_input_grad(i)) {  // every kind is symmetric in its two boxes
          result[i] = call_backward(op, grad, saved[i], saved[1 - i], kind, reduction, beta, eps);
        }
      }
      return result;
    };
    return Kept<Arguments>::gradients(ctx, grads[0], 0, 4, compute);
  }
};

at::Tensor box_loss_autograd(
    const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
    c10::string_view reduction, double beta, double eps) {
  if (!needs_gradient({pred, target})) {
    return below_autograd(pred, target, kind, reduction, beta, eps);
  }
  return BoxLoss::apply(pred, target, kind, reduction, beta, eps)[0];
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) { m.impl("box_loss", &box_loss_autograd); }

}  // namespace
}  // namespace alwa_d2
