#pragma once

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>

// What the ops' gradients (autograd/<op>.cpp) share. Each is a node in C++ for two reasons: the
// gradient is best computed together with the loss, in one pass over the inputs, and a node written
// in Python would take most of the time of a small input.

namespace alwa_d2 {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The op of this name, for calls below autograd; Signature as in library.cpp.
template <typename Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// What every derivative beyond a first one by backward() gets, in Python too (library.cpp).
[[noreturn]] inline void refuse_derivative() {
  TORCH_CHECK(
      false,
      "alwa_d2's losses can be differentiated once, not twice, by backward() or"
      " torch.autograd.grad, and take one incoming gradient at a time, not a batch of them"
      " (is_grads_batched); no forward mode (dual tensors, jvp, jacfwd), no transforms of"
      " torch.func (grad, vjp, jacrev, hessian, vmap). alwa_d2.layers.reference has the same"
      " functions in plain PyTorch, slower, for all other derivatives");
}

inline bool has_tangent(const at::Tensor& x) { return x._fw_grad(0).defined(); }

inline bool has_tangent(const std::optional<at::Tensor>& x) { return x && has_tangent(*x); }

inline bool has_tangent(at::TensorList list) {
  return std::any_of(list.begin(), list.end(), [](const at::Tensor& x) { return has_tangent(x); });
}

// Refuses forward mode, for any tensor of an op's: below autograd a tangent would be lost.
template <typename... Tensors>
void check_tangents(const Tensors&... tensors) {
  if ((has_tangent(tensors) || ...)) {
    refuse_derivative();
  }
}

// Whether a call has to be in the graph. Transforms of torch.func do not take nodes written in C++.
inline bool needs_gradient(at::TensorList list) {
  const bool needed = at::GradMode::is_enabled() &&
      std::any_of(list.begin(), list.end(), [](const at::Tensor& x) { return x.requires_grad(); });
  constexpr auto transform = c10::DispatchKey::FuncTorchDynamicLayerFrontMode;
  if (needed && c10::impl::tls_is_dispatch_key_included(transform)) {
    refuse_derivative();
  }
  return needed;
}

// Whether this is a tensor whose numbers are those in its memory, on a device that the kernels
// know: nothing that traces or wraps a tensor, no lazy negation, no zeros without memory. The
// dispatcher resolves all of these, but only below autograd.
inline bool is_plain(const at::Tensor& x) {
  constexpr c10::DispatchKeySet others(
      {c10::DispatchKey::Python, c10::DispatchKey::Negative, c10::DispatchKey::Conjugate,
       c10::DispatchKey::ZeroTensor, c10::DispatchKey::Batched,
       c10::DispatchKey::FuncTorchBatched});
  return (x.is_cpu() || x.is_cuda()) && !x.key_set().has_any(others) &&
      !c10::impl::TorchDispatchModeTLS::any_modes_set();
}

// Whether a tensor belongs to a transform: a batch of them, or one that is to be differentiated.
inline bool is_transformed(const at::Tensor& x) {
  constexpr c10::DispatchKeySet keys(
      {c10::DispatchKey::Batched, c10::DispatchKey::FuncTorchBatched,
       c10::DispatchKey::FuncTorchGradWrapper});
  return x.key_set().has_any(keys);
}

// Whether the gradient by the first of an op's tensors is computed with the loss, for an incoming
// gradient of 1. Not in float16: there the incoming gradient is GradScaler's factor, which has to
// be in the product before it is rounded.
inline bool computes_gradient_ahead(at::TensorList tensors) {
  return tensors[0].scalar_type() != at::kHalf &&
      std::all_of(tensors.begin(), tensors.end(), is_plain);
}

// An optional tensor that may follow `count` others.
inline std::optional<at::Tensor> tensor_after(const variable_list& tensors, size_t count) {
  return tensors.size() > count ? std::optional<at::Tensor>(tensors[count]) : std::nullopt;
}

// A dense op's tensors: its levels, others, and `scale` last where there is one.
inline variable_list dense_tensors(
    at::TensorList levels, std::initializer_list<at::Tensor> others,
    const std::optional<at::Tensor>& scale) {
  variable_list tensors = levels.vec();
  tensors.insert(tensors.end(), others);
  if (scale) {
    tensors.push_back(*scale);
  }
  return tensors;
}

// Calls an op with Arguments (arguments.h) below autograd.
template <typename Op, typename Arguments>
auto call_below(const Op& op, const Arguments& args) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  return args.spread([&](const auto&... flat) { return op.call(flat...); });
}

// Calls a backward op: where gradients are enabled (create_graph) so that it is in the graph, and
// refuses to be differentiated; otherwise past its Python part, which does that.
template <typename Op, typename Arguments>
auto call_backward(const Op& op, const at::Tensor& grad, const Arguments& args) {
  const auto call = [&](const auto&... flat) { return op.call(grad, flat...); };
  if (at::GradMode::is_enabled()) {
    return args.spread(call);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return args.spread(call);
}

// Multiplies gradients that were computed ahead with the incoming gradient of a reduced loss, in
// place. A 1 changes nothing: on the CPU this function looks for it, on CUDA the kernel does, so
// that nobody waits for the device.
inline void multiply(at::TensorList gradients, const at::Tensor& grad) {
  if (grad.is_cpu() &&
      (grad.scalar_type() == at::kDouble ? *grad.const_data_ptr<double>() == 1
                                         : *grad.const_data_ptr<float>() == 1)) {
    return;
  }
  static const auto op = find_op<void(at::TensorList, const at::Tensor&)>("alwa_d2::_multiply_");
  const at::AutoDispatchBelowADInplaceOrView guard;
  op.call(gradients, grad);
}

// What a node keeps besides tensors: its op's other arguments, and gradients computed ahead. The
// first backward takes these with it. A second one through the same graph computes them again, so
// that two callers never share a tensor. A backward that is captured in a CUDA graph apart from its
// forward multiplies them once more at each replay: it may be replayed once for each replay of the
// forward.
template <typename Arguments>
struct Kept : torch::CustomClassHolder {
  Arguments arguments;
  variable_list ahead;

  static void save(
      AutogradContext* ctx, variable_list tensors, Arguments arguments, variable_list ahead) {
    ctx->save_for_backward(std::move(tensors));
    ctx->set_materialize_grads(false);
    auto kept = c10::make_intrusive<Kept>();
    kept->arguments = std::move(arguments);
    kept->ahead = std::move(ahead);
    ctx->saved_data["kept"] = c10::IValue::make_capsule(std::move(kept));
  }

  // What a node's backward returns for the incoming gradient `grad`: the gradients, then nothing
  // for the op's Arguments. The gradients are those computed ahead, times `grad`, or compute(grad,
  // saved tensors, arguments) where there are none (any more).
  template <typename F>
  static variable_list gradients(AutogradContext* ctx, const at::Tensor& grad, const F& compute) {
    if (grad.defined() && (is_transformed(grad) || has_tangent(grad))) {
      refuse_derivative();
    }
    auto& kept = *static_cast<Kept*>(ctx->saved_data["kept"].toCapsule().get());
    variable_list result = std::exchange(kept.ahead, {});
    if (!grad.defined()) {
      result.clear();
    } else if (result.empty() || at::GradMode::is_enabled() || !is_plain(grad)) {
      result.clear();  // frees its memory before other gradients are computed
      result = compute(grad, ctx->get_saved_variables(), kept.arguments);
    } else {
      multiply(result, grad);
    }
    result.resize(kept.arguments.gradients + 1);
    return result;
  }
};

}  // namespace alwa_d2
