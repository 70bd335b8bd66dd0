#pragma once

#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <tuple>
#include <vector>

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

// Writes the gradient of a pair, multiplied with factor, to its row of (N, 4).
template <typename T, typename scalar_t>
ALWA_HOST_DEVICE void store_gradient(const PairLoss<T>& pair, T factor, scalar_t* row) {
  for (int j = 0; j < 4; ++j) {
    row[j] = static_cast<scalar_t>(within_range_of<scalar_t>(factor * pair.grad[j], factor));
  }
}

// The foreground among a batch's anchors: i counts anchors over all images.
template <typename T, typename scalar_t, typename Loss>
struct Foreground {
  Levels<const scalar_t> deltas;
  const T* anchors;     // (R, 4)
  const T* gt_boxes;    // (N, R, 4)
  const bool* fg_mask;  // (N, R)
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

// Calls run with the Foreground of arguments that check_dense has passed; `mask` is contiguous.
template <typename scalar_t, typename F>
void with_foreground(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const DenseShape& shape, F&& run) {
  using T = at::opmath_type<scalar_t>;
  const auto dtype = c10::CppTypeToScalarType<T>::value;
  const at::Tensor a = anchors.to(dtype).contiguous();
  const at::Tensor gt = gt_boxes.to(dtype).contiguous();
  BoxTransform<T> transform;
  for (int i = 0; i < 4; ++i) {
    transform.weights[i] = static_cast<T>(box_weights[i]);
  }
  with_kind<T>(kind, beta, eps, [&](auto loss) {
    run(Foreground<T, scalar_t, decltype(loss)>{
        make_levels<const scalar_t>(deltas, shape), a.template const_data_ptr<T>(),
        gt.template const_data_ptr<T>(), mask.const_data_ptr<bool>(), shape.anchors, transform,
        loss});
  });
}

// The ops' results, and the gradient for an incoming gradient of 1: of the same pass.
std::tuple<at::Tensor, at::Tensor> box_loss_with_gradient_cpu(
    const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
    c10::string_view reduction, double beta, double eps);
std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> dense_box_loss_with_gradient_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& fg_mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const std::optional<at::Tensor>& scale, double factor);

}  // namespace alwa_d2
