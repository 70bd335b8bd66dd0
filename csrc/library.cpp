#include <Python.h>
#include <torch/library.h>

// Every op of the extension; the implementations register themselves in cpu/<op>.cpp and
// cuda/<op>.cu, what leads to their gradients in autograd/<op>.cpp, the ops for tensors without
// numbers in meta.cpp. arguments.h repeats the lists of arguments, as structs.
//
// `deltas` and `logits` are a head's levels (N, A * K, H, W) or (N, HWA, K), also one of all
// anchors, (N, R, K). Statistics are the five numbers of csrc/stats.h. A scaled loss is multiplied
// with scale * factor.
//
// `_<op>_ahead` gives the loss and, from the same pass, its gradient for an incoming gradient of 1.
// These ops and _multiply_ are for the nodes in autograd/ alone. _refuse_derivative raises what
// they raise, for the ops' part in Python.
TORCH_LIBRARY(alwa_d2, m) {
  m.def(
      "box_loss(Tensor pred, Tensor target, str kind, str reduction, float beta, float eps)"
      " -> Tensor");
  m.def(
      "box_loss_backward(Tensor grad, Tensor pred, Tensor target, str kind, str reduction,"
      " float beta, float eps) -> Tensor");
  m.def(
      "_box_loss_ahead(Tensor pred, Tensor target, str kind, str reduction, float beta, float eps)"
      " -> (Tensor loss, Tensor gradient)");
  m.def(
      "dense_box_loss(Tensor anchors, Tensor[] deltas, Tensor gt_boxes, Tensor labels,"
      " int? num_classes, str kind, float[] box_weights, float beta, float eps, Tensor? scale,"
      " float factor=1.0) -> (Tensor loss, Tensor stats)");
  m.def(
      "dense_box_loss_backward(Tensor grad, Tensor anchors, Tensor[] deltas, Tensor gt_boxes,"
      " Tensor labels, int? num_classes, str kind, float[] box_weights, float beta, float eps,"
      " Tensor? scale, float factor=1.0) -> Tensor[]");
  m.def(
      "_dense_box_loss_ahead(Tensor anchors, Tensor[] deltas, Tensor gt_boxes, Tensor labels,"
      " int? num_classes, str kind, float[] box_weights, float beta, float eps, Tensor? scale,"
      " float factor=1.0) -> (Tensor loss, Tensor stats, Tensor[] gradients)");
  m.def(
      "label_anchors(Tensor anchors, Tensor[] gt_boxes, Tensor[] gt_classes, float[] thresholds,"
      " int[] labels, bool allow_low_quality_matches, int background, int? foreground=None)"
      " -> (Tensor labels, Tensor boxes, Tensor num_foreground)");
  m.def(
      "loss_scales(Tensor num_foreground, Tensor(a!) normalizer, Tensor[] weights, float momentum,"
      " bool update) -> Tensor");
  m.def(
      "sigmoid_focal_loss(Tensor[] logits, Tensor labels, float alpha, float gamma, Tensor? scale,"
      " float factor=1.0) -> (Tensor loss, Tensor stats)");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor[] logits, Tensor labels, float alpha,"
      " float gamma, Tensor? scale, float factor=1.0) -> Tensor[]");
  m.def(
      "_sigmoid_focal_loss_ahead(Tensor[] logits, Tensor labels, float alpha, float gamma,"
      " Tensor? scale, float factor=1.0) -> (Tensor loss, Tensor stats, Tensor[] gradients)");
  m.def("_multiply_(Tensor(a!)[] gradients, Tensor grad) -> ()");
  m.def("_refuse_derivative() -> ()");
}

// The ops live in torch.ops.alwa_d2. The Python module alwa_d2._C is empty: importing it loads
// this library, which registers them.
extern "C" PyObject* PyInit__C(void) {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
