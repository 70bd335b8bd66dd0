#include <torch/library.h>

#include "autograd.h"
#include "box_loss.h"

namespace alwa_d2 {
namespace {

using Forward = at::Tensor(
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
      const at::AutoDispatchBelowADInplaceOrView guard;
      gradients.emplace_back();
      std::tie(loss, gradients[0]) =
          box_loss_with_gradient_cpu(pred, target, kind, reduction, beta, eps);
    } else {
      loss = below_autograd(pred, target, kind, reduction, beta, eps);
    }
    ctx->save_for_backward({pred, target});
    Kept<Arguments>::save(
        ctx, {std::string(kind), std::string(reduction), beta, eps}, std::move(gradients));
    return {loss};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto& kept = Kept<Arguments>::in(ctx);
    variable_list result = kept.take(grads[0]);
    if (result.empty()) {
      const variable_list saved = ctx->get_saved_variables();
      const at::Tensor &pred = saved[0], &target = saved[1];
      result.resize(2);
      if (ctx->needs_input_grad(0)) {
        result[0] = gradient(grads[0], pred, target, kept.arguments);
      }
      if (ctx->needs_input_grad(1)) {  // every kind is symmetric in its two boxes
        result[1] = gradient(grads[0], target, pred, kept.arguments);
      }
    }
    result.resize(6);  // with the other arguments
    return result;
  }

 private:
  static at::Tensor gradient(
      const at::Tensor& grad, const at::Tensor& by, const at::Tensor& other,
      const Arguments& arguments) {
    static const auto op = find_op<Backward>("alwa_d2::box_loss_backward");
    const auto& [kind, reduction, beta, eps] = arguments;
    return call_backward(op, grad, by, other, kind, reduction, beta, eps);
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
