#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "cpu/pair_loops.h"
#include "cpu/pieces.h"

namespace alwa_d2 {
namespace {

// What a call wants besides the sum; tensors that are not defined are not wanted.
struct Wanted {
  at::Tensor losses;     // (N,)
  at::Tensor gradients;  // (N, 4), by pred
  at::Tensor grads;      // (N,), contiguous, where each pair has its own incoming gradient
  double factor = 1;     // of gradients, where they have one in common
};

// One pass over pairs: returns the sum of their losses, and writes what is wanted.
double box_pass(const BoxArguments& args, const Wanted& wanted) {
  const at::Tensor pred = args.pred.contiguous(), target = args.target.contiguous();  // (N, 4)
  double sum = 0;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss", [&] {
    using T = at::opmath_type<scalar_t>;
    const auto memory = [](const at::Tensor& x) {
      return x.defined() ? static_cast<scalar_t*>(x.data_ptr()) : nullptr;
    };
    scalar_t* const value_of = memory(wanted.losses);
    scalar_t* const gradient_of = memory(wanted.gradients);
    const scalar_t* const grad_of =
        wanted.grads.defined() ? wanted.grads.const_data_ptr<scalar_t>() : nullptr;
    with_kind<T>(args.kind, args.beta, args.eps, [&](auto loss) {
      const auto piece = [&](int64_t begin, int64_t end) {
        Stats part;
        PairBlock<T> block;
        for (int64_t first = begin; first < end; first += kLanes) {
          const int64_t n = std::min<int64_t>(kLanes, end - first);
          pair_block(
              pred.const_data_ptr<scalar_t>() + 4 * first,
              target.const_data_ptr<scalar_t>() + 4 * first, n, loss, block);
          for (int64_t j = 0; j < n; ++j) {
            const int64_t i = first + j;
            part.sum += block.value[j];
            if (value_of) {
              value_of[i] = static_cast<scalar_t>(within_range_of<scalar_t>(block.value[j]));
            }
            if (gradient_of) {
              const T grad = grad_of ? static_cast<T>(grad_of[i]) : static_cast<T>(wanted.factor);
              store_gradient(block.pair(j), grad, gradient_of + 4 * i);
            }
          }
        }
        return part;
      };
      sum = sum_over_pieces(pred.size(0), piece).sum;
    });
  });
  return sum;
}

at::Tensor box_loss_cpu(const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  const int64_t n = args.pred.size(0);
  Wanted wanted;
  if (reduction == Reduction::kNone) {
    wanted.losses = at::empty({n}, args.pred.options());
    box_pass(args, wanted);
    return wanted.losses;
  }
  return reduced_loss(box_pass(args, wanted) * reduction_factor(reduction, n), args.pred);
}

at::Tensor box_loss_backward_cpu(const at::Tensor& grad, const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  check_box_grad(grad, args, reduction);
  Wanted wanted;
  wanted.gradients = at::empty_like(args.pred, at::MemoryFormat::Contiguous);
  if (reduction == Reduction::kNone) {
    wanted.grads = grad.contiguous();
  } else {
    wanted.factor = grad.item<double>() * reduction_factor(reduction, args.pred.size(0));
  }
  box_pass(args, wanted);
  return wanted.gradients;
}

std::tuple<at::Tensor, at::Tensor> box_loss_ahead_cpu(const BoxArguments& args) {
  const Reduction reduction = check_box(args);
  Wanted wanted;
  wanted.gradients = at::empty_like(args.pred, at::MemoryFormat::Contiguous);
  wanted.factor = reduction_factor(reduction, args.pred.size(0));
  const double sum = box_pass(args, wanted);
  return {reduced_loss(sum * wanted.factor, args.pred), std::move(wanted.gradients)};
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("box_loss", &BoxEntry::call<&box_loss_cpu>);
  m.impl("box_loss_backward", &BoxEntry::call_backward<&box_loss_backward_cpu>);
  m.impl("_box_loss_ahead", &BoxEntry::call<&box_loss_ahead_cpu>);
}

}  // namespace
}  // namespace alwa_d2
