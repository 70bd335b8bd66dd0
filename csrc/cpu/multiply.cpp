#include <ATen/ATen.h>
#include <torch/library.h>

#include "checks.h"

namespace alwa_d2 {
namespace {

// A product with a 0-dim tensor is rounded once, also in bfloat16. With a C++ number it is not:
// mul_ would round that to the gradient's dtype first.
void multiply_cpu(at::TensorList gradients, const at::Tensor& grad) {
  for (at::Tensor gradient : gradients) {
    gradient.mul_(grad);
  }
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) { m.impl("_multiply_", &multiply_cpu); }

}  // namespace
}  // namespace alwa_d2
