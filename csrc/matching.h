#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <type_traits>

#include "checks.h"
#include "host_device.h"
#include "losses/elementary.h"

// What the CPU and the CUDA side of label_anchors share: the IoU, to the bit that of Detectron2's
// pairwise_iou, and its Matcher's rule. Thresholds and ties depend on every bit, so that no product
// may be rounded together with a sum: files that include this switch FMA contraction off.

namespace alwa_d2 {

// The integer of T's width.
template <typename T>
using Int = std::conditional_t<std::is_same_v<T, float>, int, long long>;

// An IoU's bits; they have its order, since it is neither negative nor NaN.
template <typename T>
ALWA_HOST_DEVICE Int<T> bits_of(T iou) {
  return bit_cast<Int<T>>(iou);
}

// nvcc contracts by default, but never this.
template <typename T>
ALWA_HOST_DEVICE T product(T a, T b) {
#if defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, float>) {
    return __fmul_rn(a, b);
  } else {
    return __dmul_rn(a, b);
  }
#else
  return a * b;
#endif
}

template <typename T>
struct MatchBox {
  T x1, y1, x2, y2;
  T area;  // of the extents as they are, negative ones too
};

template <typename T>
ALWA_HOST_DEVICE MatchBox<T> match_box(const T* box) {  // (4,) XYXY
  return {box[0], box[1], box[2], box[3], product(box[2] - box[0], box[3] - box[1])};
}

// 0 for boxes that do not overlap. Where they do, no area is smaller than the intersection, and the
// union is positive. The last line takes 0 / 0 and what comes of NaN coordinates to 0.
template <typename T>
ALWA_HOST_DEVICE T match_iou(const MatchBox<T>& gt, const MatchBox<T>& anchor) {
  const T w = (gt.x2 < anchor.x2 ? gt.x2 : anchor.x2) - (gt.x1 > anchor.x1 ? gt.x1 : anchor.x1);
  const T h = (gt.y2 < anchor.y2 ? gt.y2 : anchor.y2) - (gt.y1 > anchor.y1 ? gt.y1 : anchor.y1);
  const T intersection = product(w > 0 ? w : T(0), h > 0 ? h : T(0));
#if defined(__CUDA_ARCH__)
  // The same bits, and most threads need not divide. The CPU's loop would not be vectorised: twice
  // the time.
  if (!(intersection > 0)) {
    return T(0);
  }
#endif
  const T iou = intersection / ((gt.area + anchor.area) - intersection);
  return iou > 0 ? iou : T(0);
}

// Detectron2's Matcher and what RetinaNet makes of its labels.
template <typename T>
struct LabelRule {
  static constexpr int kMost = 8;  // thresholds; they travel to CUDA kernels by value
  int count;
  T thresholds[kMost];  // rounded to T, as PyTorch does with a number that meets a tensor
  int labels[kMost + 1];
  int64_t background;
  bool agnostic;       // whether all foreground anchors have one label
  int64_t foreground;  // that one

  LabelRule(
      at::ArrayRef<double> thresholds_, at::IntArrayRef labels_, int64_t background_,
      std::optional<int64_t> foreground_)
      : count(static_cast<int>(thresholds_.size())),
        background(background_),
        agnostic(foreground_.has_value()),
        foreground(foreground_.value_or(0)) {
    for (int i = 0; i < count; ++i) {
      thresholds[i] = static_cast<T>(thresholds_[i]);
    }
    for (int i = 0; i <= count; ++i) {
      labels[i] = static_cast<int>(labels_[i]);
    }
  }

  // The Matcher's word on an anchor with this highest IoU: 1 foreground, 0 background, -1 ignore.
  ALWA_HOST_DEVICE int match(T iou) const {
    int i = 0;
    while (i < count && iou >= thresholds[i]) {
      ++i;
    }
    return labels[i];
  }

  // The label of a foreground anchor whose box has this class.
  ALWA_HOST_DEVICE int64_t own(int64_t cls) const { return agnostic ? foreground : cls; }

  // The label of an anchor of which the Matcher says `match`.
  ALWA_HOST_DEVICE int64_t label(int match, int64_t cls) const {
    return match == 1 ? own(cls) : match == 0 ? background : -1;
  }

  // The label of an anchor, for its highest IoU and the class of the box that it has it with.
  ALWA_HOST_DEVICE int64_t operator()(T iou, int64_t cls) const { return label(match(iou), cls); }
};

// A ground truth of a negative class fills up a fixed number of them, and takes part in nothing.
ALWA_HOST_DEVICE bool is_padding(int64_t cls) { return cls < 0; }

inline void check_rule(at::ArrayRef<double> thresholds, at::IntArrayRef labels) {
  constexpr int most = LabelRule<float>::kMost;
  TORCH_CHECK_VALUE(
      thresholds.size() >= 1 && thresholds.size() <= most, "thresholds: expected 1 to ", most,
      " numbers, got ", thresholds.size());
  double last = 0;
  for (size_t i = 0; i < thresholds.size(); ++i) {
    TORCH_CHECK_VALUE(
        thresholds[i] > 0 && thresholds[i] >= last,
        "thresholds: expected positive numbers in ascending order, got ", thresholds);
    last = thresholds[i];
  }
  TORCH_CHECK_VALUE(
      labels.size() == thresholds.size() + 1, "labels: expected ", thresholds.size() + 1,
      " numbers, one more than thresholds, got ", labels.size());
  for (const int64_t label : labels) {
    TORCH_CHECK_VALUE(
        label >= -1 && label <= 1, "labels: expected each to be -1, 0 or 1, got ", label);
  }
}

inline void check_classes(const at::Tensor& classes, int64_t count, const at::Tensor& anchors) {
  TORCH_CHECK_TYPE(
      classes.scalar_type() == at::kLong, "gt_classes: expected int64, got ",
      name_of(classes.scalar_type()));
  check_shape("gt_classes", classes, {count});
  check_same("gt_classes", classes, "anchors", anchors);
}

inline void check_label_anchors(
    const at::Tensor& anchors, at::TensorList gt_boxes, at::TensorList gt_classes,
    at::ArrayRef<double> thresholds, at::IntArrayRef labels, std::optional<int64_t> foreground) {
  TORCH_CHECK_VALUE(
      anchors.dim() == 2 && anchors.size(1) == 4, "anchors: expected shape (R, 4), got ",
      anchors.sizes());
  TORCH_CHECK_TYPE(
      anchors.scalar_type() == at::kDouble || anchors.scalar_type() == at::kFloat,
      "anchors: expected float64 or float32, got ", name_of(anchors.scalar_type()));
  // Where the foreground has one label, the classes need not be known.
  const bool without_classes = foreground.has_value() && gt_classes.empty();
  TORCH_CHECK_VALUE(
      without_classes || gt_classes.size() == gt_boxes.size(), "gt_classes: expected ",
      gt_boxes.size(), " images as in gt_boxes, got ", gt_classes.size());
  for (size_t i = 0; i < gt_boxes.size(); ++i) {
    const at::Tensor& boxes = gt_boxes[i];
    TORCH_CHECK_VALUE(
        boxes.dim() == 2 && boxes.size(1) == 4, "gt_boxes: expected shape (G, 4), got ",
        boxes.sizes());
    check_dtype("gt_boxes", boxes);
    check_same("gt_boxes", boxes, "anchors", anchors);
    if (!without_classes) {
      check_classes(gt_classes[i], boxes.size(0), anchors);
    }
  }
  check_rule(thresholds, labels);
}

}  // namespace alwa_d2
