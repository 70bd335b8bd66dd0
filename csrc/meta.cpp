#include <ATen/ATen.h>
#include <torch/library.h>

#include "arguments.h"
#include "box_loss.h"
#include "focal_loss.h"
#include "loss_scales.h"
#include "matching.h"
#include "stats.h"

// The ops for tensors without numbers: meta tensors, and the fake tensors that torch.compile and
// torch.export trace programs with, whose sizes may be symbols. They check what the ops of the
// devices check, and return tensors like theirs.

namespace alwa_d2 {
namespace {

at::Tensor empty_reduced(const at::Tensor& x) {
  return at::empty({}, x.options().dtype(reduced_dtype(x)));
}

std::tuple<at::Tensor, at::Tensor> empty_sum(const at::Tensor& x) {
  return {empty_reduced(x), at::empty({Stats::kSize}, x.options().dtype(at::kDouble))};
}

at::Tensor box_loss_meta(const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  return reduction == Reduction::kNone
      ? at::empty_symint({args.pred.sym_size(0)}, args.pred.options())
      : empty_reduced(args.pred);
}

at::Tensor box_loss_backward_meta(const at::Tensor& grad, const BoxArguments& args) {
  check_box_grad(grad, args, check_box(args));
  return at::empty_like(args.pred, at::MemoryFormat::Contiguous);
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_meta(const DenseBoxArguments& args) {
  check_dense_box(args);
  return empty_sum(args.deltas[0]);
}

std::vector<at::Tensor> dense_box_loss_backward_meta(
    const at::Tensor& grad, const DenseBoxArguments& args) {
  check_dense_box(args);
  check_dense_box_grad(grad, args);
  return empty_like(args.deltas);
}

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_meta(const FocalArguments& args) {
  check_focal(args);
  return empty_sum(args.logits[0]);
}

std::vector<at::Tensor> sigmoid_focal_loss_backward_meta(
    const at::Tensor& grad, const FocalArguments& args) {
  check_focal(args);
  check_focal_grad(grad, args);
  return empty_like(args.logits);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> label_anchors_meta(const LabelArguments& args) {
  check_label_anchors(args);
  const c10::SymInt n = static_cast<int64_t>(args.gt_boxes.size()), r = args.anchors.sym_size(0);
  const auto longs = args.anchors.options().dtype(at::kLong);
  return {
      at::empty_symint({n, r}, longs), at::empty_symint({n, r, 4}, args.anchors.options()),
      at::empty({}, longs)};
}

at::Tensor loss_scales_meta(
    const at::Tensor& num_foreground, at::Tensor normalizer, at::TensorList weights,
    double momentum, bool) {
  check_loss_scales(num_foreground, normalizer, weights, momentum);
  return at::empty({static_cast<int64_t>(weights.size()) + 1}, normalizer.options());
}

TORCH_LIBRARY_IMPL(alwa_d2, Meta, m) {
  m.impl("box_loss", &BoxEntry::call<&box_loss_meta>);
  m.impl("box_loss_backward", &BoxEntry::call_backward<&box_loss_backward_meta>);
  m.impl("dense_box_loss", &DenseBoxEntry::call<&dense_box_loss_meta>);
  m.impl("dense_box_loss_backward", &DenseBoxEntry::call_backward<&dense_box_loss_backward_meta>);
  m.impl("label_anchors", &LabelEntry::call<&label_anchors_meta>);
  m.impl("loss_scales", &loss_scales_meta);
  m.impl("sigmoid_focal_loss", &FocalEntry::call<&sigmoid_focal_loss_meta>);
  m.impl(
      "sigmoid_focal_loss_backward", &FocalEntry::call_backward<&sigmoid_focal_loss_backward_meta>);
}

}  // namespace
}  // namespace alwa_d2
