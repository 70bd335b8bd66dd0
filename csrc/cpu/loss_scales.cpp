#include <ATen/ATen.h>
#include <torch/library.h>

#include "loss_scales.h"

namespace alwa_d2 {
namespace {

at::Tensor loss_scales_cpu(
    const at::Tensor& num_foreground, at::Tensor normalizer, at::TensorList weights,
    double momentum, bool update) {
  check_loss_scales(num_foreground, normalizer, weights, momentum);
  double& value = *normalizer.data_ptr<double>();
  if (update) {
    value = next_normalizer(value, num_foreground.item<double>(), momentum);
  }
  const auto size = static_cast<int64_t>(weights.size());
  at::Tensor scales = at::empty({size + 1}, normalizer.options());
  double* out = scales.data_ptr<double>();
  for (int64_t i = 0; i < size; ++i) {
    out[i] = *weights[i].const_data_ptr<double>() / value;
  }
  out[size] = 1 / value;
  return scales;
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) { m.impl("loss_scales", &loss_scales_cpu); }

}  // namespace
}  // namespace alwa_d2
