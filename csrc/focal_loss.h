#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "checks.h"
#include "losses/focal.h"

// What the CPU and the CUDA side of the focal loss share.

namespace alwa_d2 {

inline DenseShape check_focal(
    at::TensorList logits, const at::Tensor& labels, double gamma,
    const std::optional<at::Tensor>& scale) {
  TORCH_CHECK_TYPE(
      labels.scalar_type() == at::kLong, "labels: expected int64, got ",
      name_of(labels.scalar_type()));
  TORCH_CHECK_VALUE(gamma >= 0 && gamma <= 1e30, "gamma: expected 0 to 1e30, got ", gamma);
  const DenseShape shape = check_predictions("logits", logits, "labels", labels);
  check_scale(scale, "labels", labels);
  return shape;
}

}  // namespace alwa_d2
