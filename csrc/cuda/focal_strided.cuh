#pragma once

#include "cuda/focal_pass.cuh"

namespace alwa_d2 {

// All other layouts: pass.lanes threads share an anchor and read its logits number by number. A
// block takes kThreads anchors, and each thread ends one.
template <bool gamma_is_two, typename T, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    focal_strided_kernel(const __grid_constant__ FocalPass<T, scalar_t> pass) {
  constexpr int kAhead = 5;
  __shared__ int labels[kThreads];
  __shared__ T losses[kThreads];  // first only the sums of the other classes
  const Plan::Place place = pass.plan.place();
  const auto& in = pass.in.items[place.level];
  const auto& out = pass.out.items[place.level];
  const int64_t first = int64_t(place.block) * kThreads;  // among the level's anchors
  const int count = static_cast<int>(min(int64_t(kThreads), in.anchors - first));
  const int mine = threadIdx.x, lane = threadIdx.x & (pass.lanes - 1);
  const T common = pass.common(), negative = common * pass.focal.alpha_negative;

  const bool has_anchor = mine < count;
  labels[mine] = has_anchor ? pass.label(place.image * pass.anchors + in.first + first + mine) : -1;
  __syncthreads();
  for (int n = mine / pass.lanes; n < kThreads; n += kThreads / pass.lanes) {
    T sum = 0;
    if (n < count) {
      const scalar_t* const x = in.values(place.image, in.first + first + n);
      scalar_t* const dx = pass.gradients_of(place, in.first + first + n);
      const int label = labels[n];
      const T factor = label < 0 ? T(0) : negative;
      for (int k = lane; k < pass.values; k += kAhead * pass.lanes) {
        scalar_t logits[kAhead];
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          const int at = k + u * pass.lanes;
          logits[u] = at < pass.values ? x[at * in.stride_value] : scalar_t(0);
        }
#pragma unroll
        for (int u = 0; u < kAhead; ++u) {
          const int at = k + u * pass.lanes;
          if (at < pass.values) {
            const auto term = pass.template term<gamma_is_two>(logits[u]);
            sum = label == at ? sum : sum + term.value;
            if (pass.with_gradients) {
              dx[at * out.stride_value] = static_cast<scalar_t>(factor * term.slope);
            }
          }
        }
      }
    }
    for (int other = pass.lanes / 2; other > 0; other /= 2) {
      sum += __shfl_xor_sync(0xffffffff, sum, other);
    }
    if (lane == 0) {
      losses[n] = sum;
    }
  }
  __syncthreads();
  if (has_anchor) {
    const int64_t r = in.first + first + mine;
    losses[mine] = pass.end_anchor(
        labels[mine], losses[mine], in.values(place.image, r), in.stride_value,
        pass.gradients_of(place, r), out.stride_value, common);
  }
  pass.store_losses(losses, labels);
}

}  // namespace alwa_d2
