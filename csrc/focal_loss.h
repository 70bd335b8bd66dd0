#pragma once

#include "arguments.h"
#include "checks.h"
#include "losses/focal.h"

// What the sides of the focal loss share.

namespace alwa_d2 {

// Returns K.
inline c10::SymInt check_focal(const FocalArguments& args) {
  check_devices(args);
  const at::ScalarType dtype = args.labels.scalar_type();
  TORCH_CHECK_TYPE(dtype == at::kLong, "labels: expected int64, got ", name_of(dtype));
  // The slope (losses/focal.h) multiplies gamma with less than 1: it stays within float32.
  TORCH_CHECK_VALUE(
      args.gamma >= 0 && args.gamma <= 1e30, "gamma: expected 0 to 1e30, got ", args.gamma);
  c10::SymInt values = check_predictions("logits", args.logits, "labels", args.labels);
  check_scale(args.scale);
  return values;
}

inline void check_focal_grad(const at::Tensor& grad, const FocalArguments& args) {
  check_grad(grad, {}, reduced_dtype(args.logits[0]), args.logits[0]);
}

}  // namespace alwa_d2
