#pragma once

#include <type_traits>

#include "arguments.h"
#include "checks.h"
#include "host_device.h"
#include "losses/elementary.h"

// What the sides of label_anchors share: the IoU, equal to the bit to that of Detectron2's
// pairwise_iou, and the rule of its Matcher. Thresholds and ties depend on every bit, so that no
// product may be rounded together with a sum: the CPU file switches FMA contraction off, and on the
// device `product` prevents it.

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
// union is positive. The last line makes 0 of 0 / 0, and of what comes of NaN coordinates.
template <typename T>
ALWA_HOST_DEVICE T match_iou(const MatchBox<T>& gt, const MatchBox<T>& anchor) {
  const T w = (gt.x2 < anchor.x2 ? gt.x2 : anchor.x2) - (gt.x1 > anchor.x1 ? gt.x1 : anchor.x1);
  const T h = (gt.y2 < anchor.y2 ? gt.y2 : anchor.y2) - (gt.y1 > anchor.y1 ? gt.y1 : anchor.y1);
  const T intersection = product(w > 0 ? w : T(0), h > 0 ? h : T(0));
#if defined(__CUDA_ARCH__)
  // The bits are the same, and most threads need not divide. On the CPU a branch would keep the
  // loop from being vectorised, and double its time.
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
  static constexpr int kMost = 8;  // thresholds: models have 1 or 2. CUDA kernels get all by value
  int count;
  T thresholds[kMost];  // rounded to T, as PyTorch rounds a number that meets a tensor
  int labels[kMost + 1];
  int64_t background;
  bool agnostic;       // whether all foreground anchors have one label
  int64_t foreground;  // that one

  explicit LabelRule(const LabelArguments& args)
      : count(static_cast<int>(args.thresholds.size())),
        background(args.background),
        agnostic(args.foreground.has_value()),
        foreground(args.foreground.value_or(0)) {
    for (int i = 0; i < count; ++i) {
      thresholds[i] = static_cast<T>(args.thresholds[i]);
    }
    for (int i = 0; i <= count; ++i) {
      labels[i] = static_cast<int>(args.labels[i]);
    }
  }

  // What the Matcher says of an anchor with this highest IoU: 1 foreground, 0 background, -1
  // ignore.
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

  // The label of an anchor, from its highest IoU and the class of the box that it overlaps most.
  ALWA_HOST_DEVICE int64_t operator()(T iou, int64_t cls) const { return label(match(iou), cls); }
};

// A ground truth of a negative class is padding up to a fixed number, and takes part in nothing.
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

inline void check_classes(
    const at::Tensor& classes, const c10::SymInt& count, const at::Tensor& anchors) {
  TORCH_CHECK_TYPE(
      classes.scalar_type() == at::kLong, "gt_classes: expected int64, got ",
      name_of(classes.scalar_type()));
  check_shape("gt_classes", classes, {count});
  check_device("gt_classes", classes, "anchors", anchors);
}

inline void check_label_anchors(const LabelArguments& args) {
  const at::Tensor& anchors = args.anchors;
  check_boxes("anchors", anchors, "R");
  TORCH_CHECK_TYPE(
      anchors.scalar_type() == at::kDouble || anchors.scalar_type() == at::kFloat,
      "anchors: expected float64 or float32, got ", name_of(anchors.scalar_type()));
  // Where the foreground has one label, the classes need not be known.
  const bool without_classes = args.foreground.has_value() && args.gt_classes.empty();
  TORCH_CHECK_VALUE(
      without_classes || args.gt_classes.size() == args.gt_boxes.size(), "gt_classes: expected ",
      args.gt_boxes.size(), " images as in gt_boxes, got ", args.gt_classes.size());
  for (size_t i = 0; i < args.gt_boxes.size(); ++i) {
    const at::Tensor& boxes = args.gt_boxes[i];
    check_boxes("gt_boxes", boxes, "G");
    check_dtype("gt_boxes", boxes);
    check_device("gt_boxes", boxes, "anchors", anchors);
    if (!without_classes) {
      check_classes(args.gt_classes[i], boxes.sym_size(0), anchors);
    }
  }
  check_rule(args.thresholds, args.labels);
}

}  // namespace alwa_d2
