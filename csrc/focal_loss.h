#pragma once

#include "arguments.h"
#include "checks.h"
#include "losses/focal.h"

// What the sides of the focal loss share.

namespace alwa_d2 {

// For who takes the op for fvcore's or torchvision's.
constexpr const char* kOneHot =
    "; one-hot targets are for sigmoid_focal_loss of fvcore and torchvision, here a label is a"
    " class's number: torch.where(targets.any(-1), targets.argmax(-1), targets.shape[-1])";

// Returns K.
inline c10::SymInt check_focal(const FocalArguments& args) {
  check_devices(args);
  const at::ScalarType dtype = args.labels.scalar_type();
  const int64_t dims = args.labels.dim();
  const bool one_hot = dims == 3 || (!args.logits.empty() && args.logits[0].dim() == dims);
  TORCH_CHECK_TYPE(
      dtype == at::kLong, "labels: expected int64, got ", name_of(dtype),
      one_hot || at::isFloatingType(dtype) ? kOneHot : "");
  TORCH_CHECK_VALUE(
      !one_hot, "labels: expected one for each anchor, got shape ", args.labels.sym_sizes(),
      kOneHot);
  TORCH_CHECK_VALUE(
      args.alpha == -1 || (args.alpha >= 0 && args.alpha <= 1),
      "alpha: expected 0 to 1, or -1 for no weights, got ", args.alpha);
  // The slope (losses/focal.h) multiplies gamma with less than 1: it stays within float32.
  check_range("gamma", args.gamma, 1e30, "0 to 1e30");
  c10::SymInt values = check_predictions("logits", args.logits, "labels", args.labels);
  check_scale(args.scale);
  return values;
}

inline void check_focal_grad(const at::Tensor& grad, const FocalArguments& args) {
  check_grad(grad, {}, reduced_dtype(args.logits[0]), args.logits[0]);
}

}  // namespace alwa_d2
