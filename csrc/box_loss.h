#pragma once

#include <ATen/OpMathType.h>

#include <optional>
#include <string>

#include "arguments.h"
#include "checks.h"
#include "losses/box_transform.h"
#include "losses/ciou.h"
#include "losses/diou.h"
#include "losses/giou.h"
#include "losses/iou.h"
#include "losses/smooth_l1.h"

// What the sides of the box losses share.

namespace alwa_d2 {

// The table of kinds: calls `run` with the loss of this name.
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

// What turns the sum over n pairs into the reduced loss; the mean over no pair is 0.
inline double reduction_factor(Reduction reduction, int64_t n) {
  return reduction == Reduction::kMean ? (n > 0 ? 1.0 / static_cast<double>(n) : 0.0) : 1.0;
}

// A loss's kind and numbers, whether this kind uses them or not.
inline void check_kind(c10::string_view kind, double beta, double eps) {
  with_kind<float>(kind, 0, 0, [](const auto&) {});
  check_range("beta", beta, 1e30, "0 to 1e30");  // within float32, as eps
  check_range("eps", eps, 1e30, "0 to 1e30");
}

inline Reduction check_box(const BoxArguments& args) {
  check_devices(args);
  check_pairs(args.pred, args.target);
  const Reduction reduction = parse_reduction(args.reduction);
  check_kind(args.kind, args.beta, args.eps);
  return reduction;
}

inline void check_box_grad(const at::Tensor& grad, const BoxArguments& args, Reduction reduction) {
  if (reduction == Reduction::kNone) {
    check_grad(grad, {args.pred.sym_size(0)}, args.pred.scalar_type(), args.pred);
  } else {
    check_grad(grad, {}, reduced_dtype(args.pred), args.pred);
  }
}

inline void check_num_classes(const at::Tensor& labels, std::optional<int64_t> num_classes) {
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
}

inline void check_dense_box(const DenseBoxArguments& args) {
  check_devices(args);
  const at::Tensor& labels = args.labels;
  check_num_classes(labels, args.num_classes);
  const c10::SymInt values = check_predictions("deltas", args.deltas, "labels", labels);
  const c10::SymInt images = labels.sym_size(0), anchors = labels.sym_size(1);
  TORCH_CHECK_VALUE(
      values == 4 || anchors == 0, "deltas: expected 4 values an anchor, got ", values);
  check_shape("anchors", args.anchors, {anchors, 4});
  check_shape("gt_boxes", args.gt_boxes, {images, anchors, 4});
  check_dtype("anchors", args.anchors);
  check_dtype("gt_boxes", args.gt_boxes);
  TORCH_CHECK_VALUE(
      args.box_weights.size() == 4, "box_weights: expected 4 numbers, got ",
      args.box_weights.size());
  for (const double weight : args.box_weights) {
    TORCH_CHECK_VALUE(
        weight > 0 && weight <= 1e30, "box_weights: expected positive numbers, got ",
        args.box_weights);
  }
  check_scale(args.scale);
  check_kind(args.kind, args.beta, args.eps);
}

inline void check_dense_box_grad(const at::Tensor& grad, const DenseBoxArguments& args) {
  check_grad(grad, {}, reduced_dtype(args.deltas[0]), args.deltas[0]);
}

// Writes the gradient of a pair, multiplied with factor, to its row of (N, 4).
template <typename T, typename scalar_t>
ALWA_HOST_DEVICE void store_gradient(const PairLoss<T>& pair, T factor, scalar_t* row) {
  for (int j = 0; j < 4; ++j) {
    row[j] = static_cast<scalar_t>(within_range_of<scalar_t>(factor * pair.grad[j], factor));
  }
}

// Which of a batch's anchors are foreground; i counts anchors over all images.
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
    // One comparison for 0 <= label < num_classes: negative labels are the largest unsigned
    // numbers.
    return mask ? mask[i] : static_cast<uint64_t>(labels[i]) < static_cast<uint64_t>(num_classes);
  }
};

// The box losses of a batch's anchors; i counts anchors over all images.
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

// Calls `run` with the AnchorLosses of arguments that have passed check_dense_box.
template <typename scalar_t, typename F>
void with_anchor_losses(const DenseBoxArguments& args, const DenseShape& shape, F&& run) {
  using T = at::opmath_type<scalar_t>;
  const auto dtype = c10::CppTypeToScalarType<T>::value;
  const at::Tensor anchors = args.anchors.to(dtype).contiguous();
  const at::Tensor gt_boxes = args.gt_boxes.to(dtype).contiguous();
  BoxTransform<T> transform;
  for (int i = 0; i < 4; ++i) {
    transform.weights[i] = static_cast<T>(args.box_weights[i]);
  }
  with_kind<T>(args.kind, args.beta, args.eps, [&](auto loss) {
    run(AnchorLosses<T, scalar_t, decltype(loss)>{
        make_levels<const scalar_t>(args.deltas, shape), anchors.template const_data_ptr<T>(),
        gt_boxes.template const_data_ptr<T>(), shape.anchors, transform, loss});
  });
}

}  // namespace alwa_d2
