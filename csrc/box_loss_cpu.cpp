#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "pieces_cpu.h"

namespace alwa_d2 {
namespace {

at::Tensor box_loss_cpu(
    const at::Tensor& pred_, const at::Tensor& target_, c10::string_view kind,
    c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred_, target_);
  const Reduction reduction = parse_reduction(reduction_);
  const at::Tensor pred = pred_.contiguous(), target = target_.contiguous();  // (N, 4)
  const int64_t n = pred.size(0);
  at::Tensor result = reduction == Reduction::kNone
      ? at::empty({n}, pred.options())
      : at::empty({}, pred.options().dtype(reduced_dtype(pred)));

  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss", [&] {
    using T = at::opmath_type<scalar_t>;
    with_kind<T>(kind, beta, eps, [&](auto loss) {
      const Pairs<T, scalar_t, decltype(loss)> pairs{
          pred.const_data_ptr<scalar_t>(), target.const_data_ptr<scalar_t>(), loss};
      if (reduction == Reduction::kNone) {
        scalar_t* out = result.data_ptr<scalar_t>();
        for_each_piece(n, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            out[i] = static_cast<scalar_t>(within_range_of<scalar_t>(pairs(i).value));
          }
        });
        return;
      }
      const Stats stats = sum_over_pieces(n, [&](int64_t begin, int64_t end) {
        Stats part;
        for (int64_t i = begin; i < end; ++i) {
          part.add(pairs(i).value);
        }
        return part;
      });
      result.fill_(stats.sum * reduction_factor(reduction, n));
    });
  });
  return result;
}

at::Tensor box_loss_backward_cpu(
    const at::Tensor& grad_, const at::Tensor& pred_, const at::Tensor& target_,
    c10::string_view kind, c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred_, target_);
  const Reduction reduction = parse_reduction(reduction_);
  check_pair_grad(grad_, pred_, reduction);
  const at::Tensor pred = pred_.contiguous(), target = target_.contiguous();  // (N, 4)
  const at::Tensor grad = grad_.contiguous();                                 // (N,) or ()
  const int64_t n = pred.size(0);
  at::Tensor result = at::empty_like(pred);

  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        scalar_t* out = result.data_ptr<scalar_t>();
        const bool per_pair = reduction == Reduction::kNone;
        const scalar_t* grads = per_pair ? grad.const_data_ptr<scalar_t>() : nullptr;
        const T common =
            per_pair ? T(1) : static_cast<T>(grad.item<double>() * reduction_factor(reduction, n));
        with_kind<T>(kind, beta, eps, [&](auto loss) {
          const Pairs<T, scalar_t, decltype(loss)> pairs{
              pred.const_data_ptr<scalar_t>(), target.const_data_ptr<scalar_t>(), loss};
          for_each_piece(n, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              pairs.store_gradient(i, per_pair ? static_cast<T>(grads[i]) : common, out);
            }
          });
        });
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("box_loss", &box_loss_cpu);
  m.impl("box_loss_backward", &box_loss_backward_cpu);
}

}  // namespace
}  // namespace alwa_d2
