#include <ATen/core/List.h>
#include <ATen/core/stack.h>
#include <torch/library.h>

#include "autograd/node.h"

namespace alwa_d2 {
namespace {

bool is_batched(const at::Tensor& x) { return x.key_set().has(c10::DispatchKey::FuncTorchBatched); }

bool is_batched(const c10::IValue& value) {
  if (value.isTensor()) {
    return is_batched(value.toTensor());
  }
  if (value.isTensorList()) {
    const std::vector<at::Tensor> list = value.toTensorVector();
    return std::any_of(list.begin(), list.end(), [](const at::Tensor& x) { return is_batched(x); });
  }
  return false;
}

// Within vmap every call comes here. One whose tensors are not part of the batch goes on.
void refuse_batches(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  for (const c10::IValue& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (is_batched(value)) {
      refuse_derivative();
    }
  }
  const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::FuncTorchBatched);
  op.callBoxed(stack);
}

TORCH_LIBRARY_IMPL(alwa_d2, FuncTorchBatched, m) {
  for (const char* op :
       {"box_loss", "dense_box_loss", "label_anchors", "loss_scales", "sigmoid_focal_loss"}) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&refuse_batches>());
  }
}

TORCH_LIBRARY_IMPL(alwa_d2, CompositeExplicitAutograd, m) {
  m.impl("_refuse_derivative", &refuse_derivative);
}

}  // namespace
}  // namespace alwa_d2
