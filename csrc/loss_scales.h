#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>

#include "checks.h"
#include "host_device.h"

// What the sides of loss_scales share.

namespace alwa_d2 {

// A model has two weights; the CUDA kernel gets a pointer to each by value.
constexpr size_t kMostWeights = 16;

// The moving average after a batch with this number of foreground anchors. The sum and its second
// product are rounded once, together, as PyTorch's add_(x, alpha) rounds them on CUDA and on
// processors with FMA.
ALWA_HOST_DEVICE double next_normalizer(double normalizer, double num_foreground, double momentum) {
  const double count = num_foreground < 1 ? 1 : num_foreground;
#if defined(__CUDA_ARCH__)
  return __fma_rn(1 - momentum, count, __dmul_rn(momentum, normalizer));
#else
  return std::fma(1 - momentum, count, momentum * normalizer);
#endif
}

// As check_devices in checks.h, and called where it is.
inline void check_loss_scales_devices(
    const at::Tensor& num_foreground, const at::Tensor& normalizer, at::TensorList weights) {
  check_device("num_foreground", num_foreground, "normalizer", normalizer);
  for (const at::Tensor& weight : weights) {
    check_device("weights", weight, "normalizer", normalizer);
  }
}

inline void check_loss_scales(
    const at::Tensor& num_foreground, const at::Tensor& normalizer, at::TensorList weights,
    double momentum) {
  check_loss_scales_devices(num_foreground, normalizer, weights);
  check_range("momentum", momentum, 1, "0 to 1");
  check_shape("num_foreground", num_foreground, {});
  check_shape("normalizer", normalizer, {});
  TORCH_CHECK_TYPE(
      num_foreground.scalar_type() == at::kLong || num_foreground.scalar_type() == at::kDouble,
      "num_foreground: expected int64 or float64, got ", name_of(num_foreground.scalar_type()));
  TORCH_CHECK_TYPE(
      normalizer.scalar_type() == at::kDouble, "normalizer: expected float64, got ",
      name_of(normalizer.scalar_type()));
  TORCH_CHECK_VALUE(
      weights.size() <= kMostWeights, "weights: expected at most ", kMostWeights, " tensors, got ",
      weights.size());
  for (const at::Tensor& weight : weights) {
    check_shape("weights", weight, {});
    TORCH_CHECK_TYPE(
        weight.scalar_type() == at::kDouble, "weights: expected float64, got ",
        name_of(weight.scalar_type()));
  }
}

}  // namespace alwa_d2
