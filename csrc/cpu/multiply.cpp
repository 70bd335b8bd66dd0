#include <ATen/ATen.h>
#include <torch/library.h>

#include "checks.h"

namespace alwa_d2 {
namespace {

// A product with a number is rounded once, also in bfloat16.
void multiply_cpu(at::TensorList gradients, const at::Tensor& grad) {
  const double factor = grad.item<double>();
  for (at::Tensor gradient : gradients) {
    gradient.mul_(factor);
  }
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) { m.impl("_multiply_", &multiply_cpu); }

}  // namespace
}  // namespace alwa_d2
