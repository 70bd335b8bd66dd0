#pragma once

#include "cuda/focal_pass.cuh"

namespace alwa_d2 {

// The part of one anchor's loss that thread `lane` of pass.lanes computes. The anchor's K logits
// lie at x, and are read as vectors where they lie side by side.
template <bool gamma_is_two, bool vectors, typename T, typename scalar_t>
__device__ T focal_row(
    const FocalPass<T, scalar_t>& pass, const scalar_t* x, int64_t x_step, scalar_t* dx,
    int64_t dx_step, int label, int lane, T common) {
  constexpr int V = vectors ? Vector<scalar_t>::kSize : 1;
  constexpr int kAhead = 5;  // K = 80 in float32 and bfloat16 is 5 vectors for each of 4 or 2 lanes
  const T factor = label < 0 ? T(0) : common * pass.focal.alpha_negative;
  const int end = pass.values / V;
  T sum = 0;
  for (int v = lane; v < end; v += kAhead * pass.lanes) {
    Vector<scalar_t> logits[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int at = (v + u * pass.lanes) * V;
      if (at < pass.values) {
        if constexpr (vectors) {
          logits[u] = load_vector(x + at);
        } else {
          logits[u].x[0] = x[at * x_step];
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int at = (v + u * pass.lanes) * V;
      if (at < pass.values) {
        Vector<scalar_t> slopes;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const auto term = pass.template term<gamma_is_two>(logits[u].x[j]);
          sum = label == at + j ? sum : sum + term.value;
          slopes.x[j] = static_cast<scalar_t>(factor * term.slope);
        }
        if (pass.with_gradients) {
          if constexpr (vectors) {
            store_vector(dx + at, slopes);
          } else {
            dx[at * dx_step] = slopes.x[0];
          }
        }
      }
    }
  }
  T loss = pass.focal.alpha_negative * sum;
  if (0 <= label && label < pass.values && (label / V & (pass.lanes - 1)) == lane) {
    loss += pass.own(x[label * x_step], dx + label * dx_step, common);
  }
  if (label < 0 && pass.with_gradients && !is_finite(loss)) {
    for (int at = lane; at < end; at += pass.lanes) {
      // A factor of 0 is not enough for inf and NaN.
      for (int j = 0; j < V; ++j) {
        dx[(at * V + j) * dx_step] = 0;
      }
    }
  }
  return loss;
}

// Anchors, of one level of one image, that a block takes: two a thread share what does not belong
// to a logit, such as the block's sum.
constexpr int kRowAnchors = 2 * kThreads;

// For all other layouts: anchor after anchor. It is best where an anchor's logits lie side by side
// (flat, channels last).
template <bool gamma_is_two, bool vectors, typename T, typename scalar_t>
__global__ void __launch_bounds__(kThreads, (kResidentBlocks<gamma_is_two, scalar_t>))
    focal_rows_kernel(const __grid_constant__ FocalPass<T, scalar_t> pass) {
  __shared__ T losses[kRowAnchors];
  const Plan::Place place = pass.plan.place();
  const auto& in = pass.in.items[place.level];
  const auto& out = pass.out.items[place.level];
  const int64_t first = int64_t(place.block) * kRowAnchors;  // among the level's anchors
  const int count = static_cast<int>(min(int64_t(kRowAnchors), in.anchors - first));
  const int64_t batch_first = place.image * pass.anchors + in.first + first;
  const scalar_t* const x = in.data + place.image * in.stride_image + first * pass.values;
  scalar_t* const dx = out.data + place.image * out.stride_image + first * pass.values;
  const int lane = threadIdx.x & (pass.lanes - 1);
  const T common = pass.common();

  for (int n = threadIdx.x / pass.lanes; n < kRowAnchors; n += kThreads / pass.lanes) {
    T loss = 0;
    if (n < count) {
      const int label = pass.label(batch_first + n);
      if constexpr (vectors) {
        const int64_t at = int64_t(n) * pass.values;
        loss = focal_row<gamma_is_two, true>(pass, x + at, 1, dx + at, 1, label, lane, common);
      } else {
        const int64_t r = in.first + first + n;
        loss = focal_row<gamma_is_two, false>(
            pass, in.values(place.image, r), in.stride_value,
            pass.with_gradients ? out.values(place.image, r) : nullptr, out.stride_value, label,
            lane, common);
      }
    }
    for (int other = pass.lanes / 2; other > 0; other /= 2) {
      loss += __shfl_xor_sync(0xffffffff, loss, other);
    }
    if (lane == 0) {
      losses[n] = loss;
    }
  }
  if (pass.parts) {
    __syncthreads();
    Stats stats;
    for (int n = threadIdx.x; n < count; n += kThreads) {
      if (pass.labels[batch_first + n] >= 0) {
        stats.add(losses[n]);
      }
    }
    store_part(stats, pass.parts);
  }
}

}  // namespace alwa_d2
