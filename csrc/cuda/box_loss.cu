#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

// The pairs of two contiguous (N, 4) tensors.
template <typename T, typename scalar_t, typename Loss>
struct Pairs {
  const scalar_t* pred;
  const scalar_t* target;
  Loss loss;

  __device__ PairLoss<T> operator()(int64_t i) const {
    T p[4], t[4];
    load(pred + 4 * i, 1, p);
    load(target + 4 * i, 1, t);
    return loss(p, t);
  }
};

template <typename scalar_t, typename P>
struct StoreLosses {
  P pairs;
  scalar_t* losses;  // (N,)

  __device__ void operator()(int64_t i) const {
    losses[i] = static_cast<scalar_t>(within_range_of<scalar_t>(pairs(i).value));
  }
};

template <typename P>
struct AddLosses {
  P pairs;

  __device__ void operator()(int64_t i, Stats& stats) const { stats.add(pairs(i).value); }
};

template <typename T, typename scalar_t, typename P>
struct StoreGradients {
  P pairs;
  const scalar_t* grads;  // (N,), or null where all pairs have the common factor
  CommonFactor<T> common;
  scalar_t* out;  // (N, 4)

  __device__ void operator()(int64_t i) const {
    store_gradient(pairs(i), grads ? static_cast<T>(grads[i]) : common(), out + 4 * i);
  }
};

at::Tensor box_loss_cuda(
    const at::Tensor& pred_, const at::Tensor& target_, c10::string_view kind,
    c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred_, target_);
  const Reduction reduction = parse_reduction(reduction_);
  const c10::cuda::CUDAGuard guard(pred_.device());
  const at::Tensor pred = pred_.contiguous(), target = target_.contiguous();  // (N, 4)
  const int64_t n = pred.size(0);
  at::Tensor result;

  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss", [&] {
    using T = at::opmath_type<scalar_t>;
    with_kind<T>(kind, beta, eps, [&](auto loss) {
      using P = Pairs<T, scalar_t, decltype(loss)>;
      const P pairs{pred.const_data_ptr<scalar_t>(), target.const_data_ptr<scalar_t>(), loss};
      if (reduction == Reduction::kNone) {
        result = at::empty({n}, pred.options());
        for_each_cuda(n, StoreLosses<scalar_t, P>{pairs, result.data_ptr<scalar_t>()});
      } else {
        const double factor = reduction_factor(reduction, n);
        result = std::get<0>(sum_cuda<T>(n, pred, std::nullopt, factor, AddLosses<P>{pairs}));
      }
    });
  });
  return result;
}

at::Tensor box_loss_backward_cuda(
    const at::Tensor& grad_, const at::Tensor& pred_, const at::Tensor& target_,
    c10::string_view kind, c10::string_view reduction_, double beta, double eps) {
  check_pairs(pred_, target_);
  const Reduction reduction = parse_reduction(reduction_);
  check_pair_grad(grad_, pred_, reduction);
  const c10::cuda::CUDAGuard guard(pred_.device());
  const at::Tensor pred = pred_.contiguous(), target = target_.contiguous();  // (N, 4)
  const at::Tensor grad = grad_.contiguous();                                 // (N,) or ()
  const int64_t n = pred.size(0);
  at::Tensor result = at::empty_like(pred);

  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, pred.scalar_type(), "box_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const bool per_pair = reduction == Reduction::kNone;
        const scalar_t* grads = per_pair ? grad.const_data_ptr<scalar_t>() : nullptr;
        const CommonFactor<T> common{
            per_pair ? nullptr : grad.const_data_ptr<T>(), nullptr, reduction_factor(reduction, n)};
        with_kind<T>(kind, beta, eps, [&](auto loss) {
          using P = Pairs<T, scalar_t, decltype(loss)>;
          const P pairs{pred.const_data_ptr<scalar_t>(), target.const_data_ptr<scalar_t>(), loss};
          for_each_cuda(
              n, StoreGradients<T, scalar_t, P>{pairs, grads, common, result.data_ptr<scalar_t>()});
        });
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("box_loss", &box_loss_cuda);
  m.impl("box_loss_backward", &box_loss_backward_cuda);
}

}  // namespace
}  // namespace alwa_d2
