#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

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
void with_kind(std::string_view kind, double beta, double eps, F&& run) {
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

inline Reduction parse_reduction(std::string_view reduction) {
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
    const at::Tensor& fg_mask, at::ArrayRef<double> box_weights,
    const std::optional<at::Tensor>& scale) {
  TORCH_CHECK_TYPE(
      fg_mask.scalar_type() == at::kBool, "fg_mask: expected bool, got ",
      name_of(fg_mask.scalar_type()));
  const DenseShape shape = check_predictions("deltas", deltas, "fg_mask", fg_mask);
  TORCH_CHECK_VALUE(
      shape.values == 4 || shape.anchors == 0, "deltas: expected 4 values an anchor, got ",
      shape.values);
  check_shape("anchors", anchors, {shape.anchors, 4});
  check_shape("gt_boxes", gt_boxes, {shape.images, shape.anchors, 4});
  check_dtype("anchors", anchors);
  check_dtype("gt_boxes", gt_boxes);
  check_same("anchors", anchors, "fg_mask", fg_mask);
  check_same("gt_boxes", gt_boxes, "fg_mask", fg_mask);
  TORCH_CHECK_VALUE(
      box_weights.size() == 4, "box_weights: expected 4 numbers, got ", box_weights.size());
  check_scale(scale, "fg_mask", fg_mask);
  return {shape.images, shape.anchors, 4};
}

template <typename T>
BoxTransform<T> make_transform(at::ArrayRef<double> weights) {
  return {
      {static_cast<T>(weights[0]), static_cast<T>(weights[1]), static_cast<T>(weights[2]),
       static_cast<T>(weights[3])}};
}

}  // namespace alwa_d2
