#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <optional>
#include <string>

#include "levels.h"

// Checks of arguments that the CPU and the CUDA ops share. The fake kernels in alwa_d2/layers
// repeat them in the same words.

namespace alwa_d2 {

// The dtype's name in Python.
inline std::string name_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return "float64";
    case at::kFloat:
      return "float32";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kLong:
      return "int64";
    case at::kInt:
      return "int32";
    case at::kBool:
      return "bool";
    default:
      return c10::toString(dtype);
  }
}

inline void check_dtype(const char* name, const at::Tensor& x) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kDouble || dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
      name, ": expected float64, float32, float16 or bfloat16, got ", name_of(dtype));
}

inline void check_same(
    const char* name, const at::Tensor& x, const char* other_name, const at::Tensor& other) {
  TORCH_CHECK_VALUE(
      x.device() == other.device(), name, ": expected device ", other.device(), " as ", other_name,
      ", got ", x.device());
}

inline void check_shape(const char* name, const at::Tensor& x, at::IntArrayRef expected) {
  TORCH_CHECK_VALUE(
      x.sizes() == expected, name, ": expected shape ", expected, ", got ", x.sizes());
}

inline void check_pairs(const at::Tensor& pred, const at::Tensor& target) {
  TORCH_CHECK_VALUE(
      pred.dim() == 2 && pred.size(1) == 4, "pred: expected shape (N, 4), got ", pred.sizes());
  check_shape("target", target, pred.sizes());
  check_dtype("pred", pred);
  TORCH_CHECK_TYPE(
      target.scalar_type() == pred.scalar_type(), "target: expected dtype ",
      name_of(pred.scalar_type()), " as pred, got ", name_of(target.scalar_type()));
  check_same("target", target, "pred", pred);
}

inline std::string shapes_of(at::TensorList x) {
  std::string shapes;
  for (const at::Tensor& level : x) {
    shapes += (shapes.empty() ? "" : ", ") + c10::str(level.sizes());
  }
  return shapes;
}

// One (N, R, K) tensor, or levels (N, A * K, H, W) with A = R / sum of H * W, for N and R as the
// labels (or the foreground mask) have them.
inline DenseShape check_predictions(
    const char* name, at::TensorList x, const char* labels_name, const at::Tensor& labels) {
  TORCH_CHECK_VALUE(
      labels.dim() == 2, labels_name, ": expected shape (N, R), got ", labels.sizes());
  const int64_t images = labels.size(0), anchors = labels.size(1);
  TORCH_CHECK_VALUE(
      x.size() >= 1 && x.size() <= Levels<float>::kMost, name, ": expected 1 to ",
      Levels<float>::kMost, " levels, got ", x.size());
  const bool flat = x.size() == 1 && x[0].dim() == 3;
  int64_t positions = 0;
  for (const at::Tensor& level : x) {
    TORCH_CHECK_VALUE(
        flat || level.dim() == 4, name,
        ": expected one (N, R, K) tensor or levels of shape (N, A * K, H, W), got ", level.sizes());
    TORCH_CHECK_VALUE(
        level.size(0) == images, name, ": expected ", images, " images as in ", labels_name,
        ", got shape ", level.sizes());
    check_dtype(name, level);
    TORCH_CHECK_TYPE(
        level.scalar_type() == x[0].scalar_type(), name, ": expected one dtype on all levels, got ",
        name_of(x[0].scalar_type()), " and ", name_of(level.scalar_type()));
    check_same(name, level, labels_name, labels);
    positions += flat ? level.size(1) : level.size(2) * level.size(3);
  }
  const int64_t channels = flat ? x[0].size(2) : x[0].size(1);
  const int64_t per_position = positions == 0 ? 1 : anchors / positions;
  bool fits = per_position * positions == anchors && (per_position > 0 || channels == 0) &&
      (!flat || per_position == 1);
  for (const at::Tensor& level : x) {
    fits = fits && (flat || level.size(1) == channels);
  }
  fits = fits && (per_position == 0 || channels % per_position == 0);
  fits = fits && (anchors == 0 || channels > 0);
  TORCH_CHECK_VALUE(
      fits, name, ": expected the values of ", anchors, " anchors an image as in ", labels_name,
      " (on all levels the same A anchors a position, and A * K channels), got shapes ",
      shapes_of(x));
  return {images, anchors, per_position == 0 ? 0 : channels / per_position};
}

inline void check_scale(
    const std::optional<at::Tensor>& scale, const char* name, const at::Tensor& other) {
  if (scale.has_value()) {
    TORCH_CHECK_VALUE(
        scale->dim() == 0, "scale: expected a 0-dim tensor, got shape ", scale->sizes());
    check_same("scale", *scale, name, other);
  }
}

inline void check_grad(
    const at::Tensor& grad, at::IntArrayRef expected, at::ScalarType dtype, const at::Tensor& x) {
  check_shape("grad", grad, expected);
  TORCH_CHECK_TYPE(
      grad.scalar_type() == dtype, "grad: expected dtype ", name_of(dtype), ", got ",
      name_of(grad.scalar_type()));
  check_same("grad", grad, "the inputs", x);
}

// Losses reduced over many pairs are float32, and float64 for float64 inputs.
inline at::ScalarType reduced_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace alwa_d2
