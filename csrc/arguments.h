#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/string_view.h>

#include <optional>

// What each op is given. The dispatcher calls with one argument after another; from there on they
// travel together, on every device and in autograd.

namespace alwa_d2 {

// The way from the dispatcher to a function of an op's Arguments, whose members have the types Flat
// and the order of the schema (library.cpp).
template <typename Arguments, typename... Flat>
struct Entry {
  template <typename Result>
  using Signature = Result(Flat...);
  template <typename Result>
  using BackwardSignature = Result(const at::Tensor&, Flat...);  // the incoming gradient first

  template <auto function>
  static auto call(Flat... flat) {
    return function(Arguments{flat...});
  }

  template <auto function>
  static auto call_backward(const at::Tensor& grad, Flat... flat) {
    return function(grad, Arguments{flat...});
  }
};

// `spread` is the way back: it calls `f` with one argument after another.

struct BoxArguments {
  const at::Tensor& pred;            // (N, 4)
  const at::Tensor& target;          // (N, 4)
  c10::string_view kind, reduction;  // of the loss (box_loss.h); none, mean or sum
  double beta, eps;                  // of smooth_l1; of the other kinds

  template <typename F>
  auto spread(const F& f) const {
    return f(pred, target, kind, reduction, beta, eps);
  }
};

using BoxEntry = Entry<
    BoxArguments, const at::Tensor&, const at::Tensor&, c10::string_view, c10::string_view, double,
    double>;

struct DenseBoxArguments {
  const at::Tensor& anchors;           // (R, 4)
  at::TensorList deltas;               // as FocalArguments::logits, K = 4
  const at::Tensor& gt_boxes;          // (N, R, 4)
  const at::Tensor& labels;            // (N, R), int64 or a bool mask of the foreground
  std::optional<int64_t> num_classes;  // none with a mask
  c10::string_view kind;
  at::ArrayRef<double> box_weights;  // four
  double beta, eps;
  const std::optional<at::Tensor>& scale;  // (); the loss is multiplied with scale * factor
  double factor;

  template <typename F>
  auto spread(const F& f) const {
    return f(
        anchors, deltas, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale,
        factor);
  }
};

using DenseBoxEntry = Entry<
    DenseBoxArguments, const at::Tensor&, at::TensorList, const at::Tensor&, const at::Tensor&,
    std::optional<int64_t>, c10::string_view, at::ArrayRef<double>, double, double,
    const std::optional<at::Tensor>&, double>;

struct FocalArguments {
  at::TensorList logits;     // levels: (N, HWA, K), one or more, or (N, A * K, H, W)
  const at::Tensor& labels;  // (N, R) int64
  double alpha, gamma;
  const std::optional<at::Tensor>& scale;  // (); the loss is multiplied with scale * factor
  double factor;

  template <typename F>
  auto spread(const F& f) const {
    return f(logits, labels, alpha, gamma, scale, factor);
  }
};

using FocalEntry = Entry<
    FocalArguments, at::TensorList, const at::Tensor&, double, double,
    const std::optional<at::Tensor>&, double>;

struct LabelArguments {
  const at::Tensor& anchors;  // (R, 4)
  at::TensorList gt_boxes;    // (G, 4) of each of N images
  at::TensorList gt_classes;  // (G,) int64 of each; none, where `foreground` is given
  at::ArrayRef<double> thresholds;
  at::IntArrayRef labels;  // one more than thresholds
  bool allow_low_quality_matches;
  int64_t background;
  std::optional<int64_t> foreground;

  template <typename F>
  auto spread(const F& f) const {
    return f(
        anchors, gt_boxes, gt_classes, thresholds, labels, allow_low_quality_matches, background,
        foreground);
  }
};

using LabelEntry = Entry<
    LabelArguments, const at::Tensor&, at::TensorList, at::TensorList, at::ArrayRef<double>,
    at::IntArrayRef, bool, int64_t, std::optional<int64_t>>;

}  // namespace alwa_d2
