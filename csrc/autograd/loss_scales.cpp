#include <ATen/ATen.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include "autograd/node.h"
#include "loss_scales.h"

namespace alwa_d2 {
namespace {

// No gradient flows through loss_scales. Autograd has to be told that it writes the normaliser.
at::Tensor loss_scales_autograd(
    const at::Tensor& num_foreground, at::Tensor normalizer, at::TensorList weights,
    double momentum, bool update) {
  check_loss_scales_devices(num_foreground, normalizer, weights);
  check_tangents(num_foreground, normalizer, weights);
  for (const at::Tensor& weight : weights) {
    TORCH_CHECK_VALUE(
        !at::GradMode::is_enabled() || !weight.requires_grad(),
        "weights: expected detached tensors, got one that requires grad");
  }
  using Signature = at::Tensor(const at::Tensor&, at::Tensor, at::TensorList, double, bool);
  static const auto op = find_op<Signature>("alwa_d2::loss_scales");
  const at::AutoDispatchBelowADInplaceOrView guard;
  at::Tensor scales = op.call(num_foreground, normalizer, weights, momentum, update);
  if (update) {
    torch::autograd::impl::bump_version(normalizer);
  }
  return scales;
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) { m.impl("loss_scales", &loss_scales_autograd); }

}  // namespace
}  // namespace alwa_d2
