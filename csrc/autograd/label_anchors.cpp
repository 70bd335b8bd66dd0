#include <torch/library.h>

#include "arguments.h"
#include "autograd/node.h"

namespace alwa_d2 {
namespace {

using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// No gradient flows through label_anchors: what comes from below autograd requires none.
Result label_anchors_autograd(const LabelArguments& args) {
  check_tangents(args.anchors, args.gt_boxes);
  static const auto op = find_op<LabelEntry::Signature<Result>>("alwa_d2::label_anchors");
  return call_below(op, args);
}

TORCH_LIBRARY_IMPL(alwa_d2, Autograd, m) {
  m.impl("label_anchors", &LabelEntry::call<&label_anchors_autograd>);
}

}  // namespace
}  // namespace alwa_d2
