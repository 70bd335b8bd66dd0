#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <optional>
#include <string>

#include "arguments.h"
#include "levels.h"

// Checks of arguments that the ops share on every device, and where there is none (meta.cpp). There
// sizes may be symbols: so they are c10::SymInt here. With plain numbers that costs 0.1 us a call.

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

// A number from 0 to `most`, which `range` has in words. NaN is in no range.
inline void check_range(const char* name, double value, double most, const char* range) {
  TORCH_CHECK_VALUE(value >= 0 && value <= most, name, ": expected ", range, ", got ", value);
}

inline void check_dtype(const char* name, const at::Tensor& x) {
  const auto dtype = x.scalar_type();
  TORCH_CHECK_TYPE(
      dtype == at::kDouble || dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
      name, ": expected float64, float32, float16 or bfloat16, got ", name_of(dtype));
}

inline void check_device(
    const char* name, const at::Tensor& x, const char* other_name, const at::Tensor& other) {
  TORCH_CHECK_VALUE(
      x.device() == other.device(), name, ": expected device ", other.device(), " as ", other_name,
      ", got ", x.device());
}

// The devices of an op's tensors. The ops of the devices check them, and so does autograd/: there a
// fake tensor still has the device that it stands for, in its kernel (meta.cpp) all are on none.
inline void check_devices(const BoxArguments& args) {
  check_device("target", args.target, "pred", args.pred);
}

template <typename Arguments>
void check_devices(const char* name, at::TensorList levels, const Arguments& args) {
  for (const at::Tensor& level : levels) {
    check_device(name, level, "labels", args.labels);
  }
  if (args.scale.has_value()) {
    check_device("scale", *args.scale, "labels", args.labels);
  }
}

inline void check_devices(const DenseBoxArguments& args) {
  check_devices("deltas", args.deltas, args);
  check_device("anchors", args.anchors, "labels", args.labels);
  check_device("gt_boxes", args.gt_boxes, "labels", args.labels);
}

inline void check_devices(const FocalArguments& args) {
  check_devices("logits", args.logits, args);
}

// Whether two sizes are the same. Where that is known only when a traced program runs, the answer
// is yes, and the program checks it then.
inline bool same_size(const c10::SymInt& a, const c10::SymInt& b) {
  return a.sym_eq(b).expect_true(__FILE__, __LINE__);
}

inline bool has_shape(const at::Tensor& x, c10::SymIntArrayRef expected) {
  const c10::SymIntArrayRef sizes = x.sym_sizes();
  return sizes.size() == expected.size() &&
      std::equal(sizes.begin(), sizes.end(), expected.begin(), same_size);
}

inline void check_shape(const char* name, const at::Tensor& x, c10::SymIntArrayRef expected) {
  TORCH_CHECK_VALUE(
      has_shape(x, expected), name, ": expected shape ", expected, ", got ", x.sym_sizes());
}

// Boxes; `rows` is what their number is called.
inline void check_boxes(const char* name, const at::Tensor& x, const char* rows) {
  TORCH_CHECK_VALUE(
      x.dim() == 2 && same_size(x.sym_size(1), 4), name, ": expected shape (", rows, ", 4), got ",
      x.sym_sizes());
}

inline void check_pairs(const at::Tensor& pred, const at::Tensor& target) {
  check_boxes("pred", pred, "N");
  check_shape("target", target, pred.sym_sizes());
  check_dtype("pred", pred);
  TORCH_CHECK_TYPE(
      target.scalar_type() == pred.scalar_type(), "target: expected dtype ",
      name_of(pred.scalar_type()), " as pred, got ", name_of(target.scalar_type()));
}

inline std::string shapes_of(at::TensorList x) {
  std::string shapes;
  for (const at::Tensor& level : x) {
    shapes += (shapes.empty() ? "" : ", ") + c10::str(level.sym_sizes());
  }
  return shapes;
}

// Levels (N, A * K, H, W) with A = R / sum of H * W, or (N, HWA, K), of which one may be (N, R, K),
// for N and R as the labels (or the foreground mask) have them. Returns K.
inline c10::SymInt check_predictions(
    const char* name, at::TensorList x, const char* labels_name, const at::Tensor& labels) {
  TORCH_CHECK_VALUE(
      labels.dim() == 2, labels_name, ": expected shape (N, R), got ", labels.sym_sizes());
  const c10::SymInt images = labels.sym_size(0), anchors = labels.sym_size(1);
  TORCH_CHECK_VALUE(
      x.size() >= 1 && x.size() <= Levels<float>::kMost, name, ": expected 1 to ",
      Levels<float>::kMost, " levels, got ", x.size());
  const bool flat = x[0].dim() == 3;
  c10::SymInt positions = 0;
  for (const at::Tensor& level : x) {
    TORCH_CHECK_VALUE(
        level.dim() == (flat ? 3 : 4), name,
        ": expected one (N, R, K) tensor, or levels of shape (N, HWA, K), or all levels of shape"
        " (N, A * K, H, W), got ",
        level.sym_sizes());
    TORCH_CHECK_VALUE(
        same_size(level.sym_size(0), images), name, ": expected ", images, " images as in ",
        labels_name, ", got shape ", level.sym_sizes());
    check_dtype(name, level);
    TORCH_CHECK_TYPE(
        level.scalar_type() == x[0].scalar_type(), name, ": expected one dtype on all levels, got ",
        name_of(x[0].scalar_type()), " and ", name_of(level.scalar_type()));
    positions += flat ? level.sym_size(1) : level.sym_size(2) * level.sym_size(3);
  }
  const c10::SymInt channels = x[0].sym_size(flat ? 2 : 1);
  const c10::SymInt per_position = flat || positions == 0 ? c10::SymInt(1) : anchors / positions;
  bool fits = same_size(per_position * positions, anchors) && (per_position > 0 || channels == 0);
  for (const at::Tensor& level : x) {
    fits = fits && same_size(level.sym_size(flat ? 2 : 1), channels);
  }
  fits = fits && (per_position == 0 || channels % per_position == 0);
  fits = fits && (channels > 0 || anchors == 0);
  TORCH_CHECK_VALUE(
      fits, name, ": expected the values of ", anchors, " anchors an image as in ", labels_name,
      " (on all levels the same A anchors a position, and A * K channels), got shapes ",
      shapes_of(x));
  return per_position == 0 ? c10::SymInt(0) : channels / per_position;
}

// N and R of labels, and K of predictions that have been checked, where they are plain numbers.
inline DenseShape dense_shape(const at::Tensor& labels, const c10::SymInt& values) {
  return {labels.size(0), labels.size(1), values.expect_int()};
}

inline void check_scale(const std::optional<at::Tensor>& scale) {
  TORCH_CHECK_VALUE(
      !scale.has_value() || scale->dim() == 0, "scale: expected a 0-dim tensor, got shape ",
      scale->sym_sizes());
}

inline void check_grad(
    const at::Tensor& grad, c10::SymIntArrayRef expected, at::ScalarType dtype,
    const at::Tensor& x) {
  check_shape("grad", grad, expected);
  TORCH_CHECK_TYPE(
      grad.scalar_type() == dtype, "grad: expected dtype ", name_of(dtype), ", got ",
      name_of(grad.scalar_type()));
  check_device("grad", grad, "the inputs", x);
}

// The dtype of a loss reduced over many pairs: float64 for float64 inputs, otherwise float32.
inline at::ScalarType reduced_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace alwa_d2
