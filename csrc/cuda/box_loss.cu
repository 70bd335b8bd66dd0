#include "box_loss.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

// Pairs of two contiguous (N, 4) tensors, and what is wanted of each: a null pointer is not written
// to. A thread takes a pair.
template <typename T, typename scalar_t, typename Loss>
struct Pairs {
  int64_t count;
  const scalar_t* pred;
  const scalar_t* target;
  Loss loss;
  scalar_t* losses;       // (N,)
  scalar_t* gradients;    // (N, 4), by pred
  const scalar_t* grads;  // (N,), incoming gradients of pairs; null where `common` is for all
  CommonFactor<T> common;
  double* parts;  // (blocks, 5), statistics
};

template <typename T, typename scalar_t, typename Loss>
__global__ void __launch_bounds__(kThreads)
    box_loss_kernel(const __grid_constant__ Pairs<T, scalar_t, Loss> pairs) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  Stats stats;
  if (i < pairs.count) {
    T pred[4], target[4];
    load(pairs.pred + 4 * i, 1, pred);
    load(pairs.target + 4 * i, 1, target);
    const PairLoss<T> loss = pairs.loss(pred, target);
    stats.add(loss.value);
    if (pairs.losses) {
      pairs.losses[i] = static_cast<scalar_t>(within_range_of<scalar_t>(loss.value));
    }
    if (pairs.gradients) {
      const T factor = pairs.grads ? static_cast<T>(pairs.grads[i]) : pairs.common();
      store_gradient(loss, factor, pairs.gradients + 4 * i);
    }
  }
  if (pairs.parts) {
    store_total(block_total(stats), pairs.parts);
  }
}

// What a call wants from box_pass; tensors that are not defined are not wanted.
struct Wanted {
  at::Tensor losses, gradients;
  at::Tensor grads;                  // (N,), contiguous: incoming gradients of pairs
  const at::Tensor* grad = nullptr;  // (), that of the reduced loss; null where it is 1
  double factor = 1;
  bool sum = false;
};

// One pass over pairs. Returns the blocks' parts of the sum where it is wanted.
at::Tensor box_pass(const BoxArguments& args, const Wanted& wanted) {
  const at::Tensor pred = args.pred.contiguous(), target = args.target.contiguous();  // (N, 4)
  const int64_t n = pred.size(0), blocks = (n + kThreads - 1) / kThreads;
  TORCH_CHECK_VALUE(
      blocks <= std::numeric_limits<int>::max(), "pred: expected at most 2^39 pairs, got ", n);
  at::Tensor parts = empty_parts(wanted.sum ? blocks : 0, pred);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss", [&] {
    using T = at::opmath_type<scalar_t>;
    const auto memory = [](const at::Tensor& x) {
      return x.defined() ? static_cast<scalar_t*>(x.data_ptr()) : nullptr;
    };
    with_kind<T>(args.kind, args.beta, args.eps, [&](auto loss) {
      const Pairs<T, scalar_t, decltype(loss)> pairs{
          n,
          pred.const_data_ptr<scalar_t>(),
          target.const_data_ptr<scalar_t>(),
          loss,
          memory(wanted.losses),
          memory(wanted.gradients),
          wanted.grads.defined() ? wanted.grads.const_data_ptr<scalar_t>() : nullptr,
          {wanted.grad ? wanted.grad->const_data_ptr<T>() : nullptr, nullptr, wanted.factor},
          wanted.sum ? parts.data_ptr<double>() : nullptr};
      if (blocks > 0) {
        box_loss_kernel<<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(pairs);
        C10_CUDA_KERNEL_LAUNCH_CHECK();
      }
    });
  });
  return parts;
}

at::Tensor box_loss_cuda(const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  const c10::cuda::CUDAGuard guard(args.pred.device());
  const int64_t n = args.pred.size(0);
  Wanted wanted;
  if (reduction == Reduction::kNone) {
    wanted.losses = at::empty({n}, args.pred.options());
    box_pass(args, wanted);
    return wanted.losses;
  }
  wanted.sum = true;
  const at::Tensor parts = box_pass(args, wanted);
  return std::get<0>(total_of(parts, args.pred, nullptr, reduction_factor(reduction, n)));
}

std::tuple<at::Tensor, at::Tensor> box_loss_ahead_cuda(const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  const c10::cuda::CUDAGuard guard(args.pred.device());
  Wanted wanted;
  wanted.gradients = at::empty_like(args.pred, at::MemoryFormat::Contiguous);
  wanted.factor = reduction_factor(reduction, args.pred.size(0));
  wanted.sum = true;
  const at::Tensor parts = box_pass(args, wanted);
  return {std::get<0>(total_of(parts, args.pred, nullptr, wanted.factor)), wanted.gradients};
}

at::Tensor box_loss_backward_cuda(const at::Tensor& grad_, const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  check_box_grad(grad_, args, reduction);
  const c10::cuda::CUDAGuard guard(args.pred.device());
  const at::Tensor grad = grad_.contiguous();  // (N,) or ()
  Wanted wanted;
  wanted.gradients = at::empty_like(args.pred, at::MemoryFormat::Contiguous);
  if (reduction == Reduction::kNone) {
    wanted.grads = grad;
  } else {
    wanted.grad = &grad;
    wanted.factor = reduction_factor(reduction, args.pred.size(0));
  }
  box_pass(args, wanted);
  return wanted.gradients;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("box_loss", &BoxEntry::call<&box_loss_cuda>);
  m.impl("box_loss_backward", &BoxEntry::call_backward<&box_loss_backward_cuda>);
  m.impl("_box_loss_ahead", &BoxEntry::call<&box_loss_ahead_cuda>);
}

}  // namespace
}  // namespace alwa_d2
