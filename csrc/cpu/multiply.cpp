#include <ATen/ATen.h>
#include <torch/library.h>

#include "checks.h"

namespace alwa_d2 {
namespace {

// The product with a 0-dim tensor is rounded once, in bfloat16 too. A C++ number would be rounded
// to the gradient's dtype first.
void multiply_cpu(at::TensorList gradients, const at::Tensor& grad) {
  for (at::Tensor gradient : gradients) {
    gradient.mul_(grad);
  }
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) { m.impl("_multiply_", &multiply_cpu); }

}  // namespace
}  // namespace alwa_d2
