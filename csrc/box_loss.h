#pragma once

#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <optional>
#include <string>

#include "checks.h"
#include "losses/box_transform.h"
#include "losses/ciou.h"
#include "losses/diou.h"
#include "losses/giou.h"
#include "losses/iou.h"
#include "losses/smooth_l1.h"

// What the CPU and the CUDA side of the box losses share.

namespace alwa_d2 {

// The table of kinds: calls run with the loss that bears the name.
template <typename T, typename F>
void with_kind(c10::string_view kind, double beta, double eps, F&& run) {
  const T e = static_cast<T>(eps);
  if (kind == "l1") return run(SmoothL1<T>(0));
  if (kind == "smooth_l1") return run(SmoothL1<T>(beta));
  if (kind == "iou") return run(IoU<T>{e});
  if (kind == "giou") return run(GIoU<T>{e});
  if (kind == "diou") return run(DIoU<T>{e});
  if (kind == "ciou") return run(CIoU<T>{e});
  TORCH_CHECK_VALUE(
      false, "kind: expected one of l1, smooth_l1, iou, giou, diou, ciou, got '", kind, "'");
}

enum class Reduction { kNone, kMean, kSum };

inline Reduction parse_reduction(c10::string_view reduction) {
  TORCH_CHECK_VALUE(
      reduction == "none" || reduction == "mean" || reduction == "sum",
      "reduction: expected one of none, mean, sum, got '", reduction, "'");
  return reduction == "none" ? Reduction::kNone
                             : (reduction == "mean" ? Reduction::kMean : Reduction::kSum);
}

// What the sum over n pairs is multiplied with; the mean over none is 0.
inline double reduction_factor(Reduction reduction, int64_t n) {
  return reduction == Reduction::kMean ? (n > 0 ? 1.0 / static_cast<double>(n) : 0.0) : 1.0;
}

inline void check_pair_grad(const at::Tensor& grad, const at::Tensor& pred, Reduction reduction) {
  if (reduction == Reduction::kNone) {
    check_grad(grad, {pred.size(0)}, pred.scalar_type(), pred);
  } else {
    check_grad(grad, {}, reduced_dtype(pred), pred);
  }
}

inline DenseShape check_dense(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, at::ArrayRef<double> box_weights,
    const std::optional<at::Tensor>& scale) {
  const bool is_mask = labels.scalar_type() == at::kBool;
  TORCH_CHECK_TYPE(
      is_mask || labels.scalar_type() == at::kLong, "labels: expected int64 or bool, got ",
      name_of(labels.scalar_type()));
  TORCH_CHECK_VALUE(
      is_mask || (num_classes.has_value() && *num_classes >= 0),
      "num_classes: expected the number of classes with int64 labels, got ",
      num_classes.has_value() ? std::to_string(*num_classes) : "None");
  TORCH_CHECK_VALUE(
      !is_mask || !num_classes.has_value(),
      "num_classes: expected None with labels that are a bool mask, got ", num_classes.value_or(0));
  const DenseShape shape = check_predictions("deltas", deltas, "labels", labels);
  TORCH_CHECK_VALUE(
      shape.values == 4 || shape.anchors == 0, "deltas: expected 4 values an anchor, got ",
      shape.values);
  check_shape("anchors", anchors, {shape.anchors, 4});
  check_shape("gt_boxes", gt_boxes, {shape.images, shape.anchors, 4});
  check_dtype("anchors", anchors);
  check_dtype("gt_boxes", gt_boxes);
  check_same("anchors", anchors, "labels", labels);
  check_same("gt_boxes", gt_boxes, "labels", labels);
  TORCH_CHECK_VALUE(
      box_weights.size() == 4, "box_weights: expected 4 numbers, got ", box_weights.size());
  check_scale(scale, "labels", labels);
  return {shape.images, shape.anchors, 4};
}

// Writes the gradient of a pair, multiplied with factor, to its row of (N, 4).
template <typename T, typename scalar_t>
ALWA_HOST_DEVICE void store_gradient(const PairLoss<T>& pair, T factor, scalar_t* row) {
  for (int j = 0; j < 4; ++j) {
    row[j] = static_cast<scalar_t>(within_range_of<scalar_t>(factor * pair.grad[j], factor));
  }
}

// Which of a batch's anchors are foreground: i counts them over all images.
struct IsForeground {
  const bool* mask;       // (N, R), or null where there are labels
  const int64_t* labels;  // (N, R)
  int64_t num_classes;

  // `labels` is contiguous.
  IsForeground(const at::Tensor& labels_, std::optional<int64_t> num_classes_)
      : mask(num_classes_ ? nullptr : labels_.const_data_ptr<bool>()),
        labels(num_classes_ ? labels_.const_data_ptr<int64_t>() : nullptr),
        num_classes(num_classes_.value_or(0)) {}

  ALWA_HOST_DEVICE bool operator()(int64_t i) const {
    // Negative labels are the largest unsigned numbers.
    return mask ? mask[i] : static_cast<uint64_t>(labels[i]) < static_cast<uint64_t>(num_classes);
  }
};

// The box loss of a batch's anchors: i counts them over all images.
template <typename T, typename scalar_t, typename Loss>
struct AnchorLosses {
  Levels<const scalar_t> deltas;
  const T* anchors;   // (R, 4)
  const T* gt_boxes;  // (N, R, 4)
  int64_t anchors_per_image;
  BoxTransform<T> transform;
  Loss loss;

  ALWA_HOST_DEVICE PairLoss<T> operator()(int64_t i) const {
    const int64_t image = i / anchors_per_image, r = i % anchors_per_image;
    const Level<const scalar_t>& level = deltas.of_anchor(r);
    T delta[4];
    load(level.values(image, r), level.stride_value, delta);
    return anchor_loss(loss, transform, anchors + 4 * r, delta, gt_boxes + 4 * i);
  }

  // Writes the gradient of anchor i, multiplied with factor, to its place in out.
  ALWA_HOST_DEVICE void store_gradient(
      int64_t i, const PairLoss<T>& pair, T factor, const Levels<scalar_t>& out) const {
    const int64_t image = i / anchors_per_image, r = i % anchors_per_image;
    const Level<scalar_t>& level = out.of_anchor(r);
    scalar_t* values = level.values(image, r);
    for (int j = 0; j < 4; ++j) {
      values[j * level.stride_value] = static_cast<scalar_t>(factor * pair.grad[j]);
    }
  }
};

// Calls run with the AnchorLosses of arguments that check_dense has passed.
template <typename scalar_t, typename F>
void with_anchor_losses(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps,
    const DenseShape& shape, F&& run) {
  using T = at::opmath_type<scalar_t>;
  const auto dtype = c10::CppTypeToScalarType<T>::value;
  const at::Tensor a = anchors.to(dtype).contiguous();
  const at::Tensor gt = gt_boxes.to(dtype).contiguous();
  BoxTransform<T> transform;
  for (int i = 0; i < 4; ++i) {
    transform.weights[i] = static_cast<T>(box_weights[i]);
  }
  with_kind<T>(kind, beta, eps, [&](auto loss) {
    run(AnchorLosses<T, scalar_t, decltype(loss)>{
        make_levels<const scalar_t>(deltas, shape), a.template const_data_ptr<T>(),
        gt.template const_data_ptr<T>(), shape.anchors, transform, loss});
  });
}

}  // namespace alwa_d2
