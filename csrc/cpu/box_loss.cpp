#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "cpu/pair_loops.h"
#include "cpu/pieces.h"

namespace alwa_d2 {
namespace {

// One pass over pairs: their sum. Where there are tensors for them, also the losses of pairs, (N,),
// and the gradients by pred, (N, 4), times `factor` and, where it is defined, the pair's own in
// `grads`, (N,).
double box_pass(
    const at::Tensor& pred_, const at::Tensor& target_, c10::string_view kind, double beta,
    double eps, const at::Tensor& losses, const at::Tensor& gradients, const at::Tensor& grads_,
    double factor) {
  const at::Tensor pred = pred_.contiguous(), target = target_.contiguous();  // (N, 4)
  const at::Tensor grads = grads_.defined() ? grads_.contiguous() : grads_;
  double sum = 0;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss", [&] {
    using T = at::opmath_type<scalar_t>;
    scalar_t* value_of = losses.defined() ? losses.data_ptr<scalar_t>() : nullptr;
    scalar_t* gradient_of = gradients.defined() ? gradients.data_ptr<scalar_t>() : nullptr;
    const scalar_t* grad_of = grads.defined() ? grads.const_data_ptr<scalar_t>() : nullptr;
    with_kind<T>(kind, beta, eps, [&](auto loss) {
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
              const T grad = grad_of ? static_cast<T>(grad_of[i]) : static_cast<T>(factor);
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

at::Tensor box_loss_cpu(
    const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
    c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred, target);
  const Reduction reduction = parse_reduction(reduction_);
  at::Tensor losses;
  if (reduction == Reduction::kNone) {
    losses = at::empty({pred.size(0)}, pred.options());
  }
  const double sum = box_pass(pred, target, kind, beta, eps, losses, {}, {}, 1);
  if (losses.defined()) {
    return losses;
  }
  return reduced_loss(sum * reduction_factor(reduction, pred.size(0)), pred);
}

at::Tensor box_loss_backward_cpu(
    const at::Tensor& grad, const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
    c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred, target);
  const Reduction reduction = parse_reduction(reduction_);
  check_pair_grad(grad, pred, reduction);
  at::Tensor result = at::empty_like(pred, at::MemoryFormat::Contiguous);
  if (reduction == Reduction::kNone) {
    box_pass(pred, target, kind, beta, eps, {}, result, grad, 1);
  } else {
    const double common = grad.item<double>() * reduction_factor(reduction, pred.size(0));
    box_pass(pred, target, kind, beta, eps, {}, result, {}, common);
  }
  return result;
}

std::tuple<at::Tensor, at::Tensor> box_loss_ahead_cpu(
    const at::Tensor& pred, const at::Tensor& target, c10::string_view kind,
    c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred, target);
  const Reduction reduction = parse_reduction(reduction_);
  at::Tensor gradient = at::empty_like(pred, at::MemoryFormat::Contiguous);
  const double factor = reduction_factor(reduction, pred.size(0));
  const double sum = box_pass(pred, target, kind, beta, eps, {}, gradient, {}, factor);
  return {reduced_loss(sum * factor, pred), std::move(gradient)};
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("box_loss", &box_loss_cpu);
  m.impl("box_loss_backward", &box_loss_backward_cpu);
  m.impl("_box_loss_ahead", &box_loss_ahead_cpu);
}

}  // namespace
}  // namespace alwa_d2
