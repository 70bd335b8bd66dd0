#pragma once

#include "cuda/focal_pass.cuh"

namespace alwa_d2 {

// The losses of a PlaneShare's anchors, class after class.
template <bool gamma_is_two, bool aligned, typename T, typename scalar_t>
__device__ Stats focal_planes(
    const FocalPass<T, scalar_t>& pass, const Plan::Place& place, const PlaneShare& share) {
  constexpr int V = Vector<scalar_t>::kSize;
  // Channels whose loads are under way together: 64 bytes a thread (see kResidentBlocks).
  constexpr int kAhead = 4;
  const auto& in = pass.in.items[place.level];
  const auto& out = pass.out.items[place.level];
  const scalar_t* const x = share.memory(in, place.image);
  scalar_t* const dx = pass.with_gradients ? share.memory(out, place.image) : nullptr;
  const int64_t i = share.anchor(in, place.image, pass.anchors);
  const int64_t i_step = share.step * in.per_position;
  const T common = pass.common();

  int label[V];
  T factor[V], sum[V];
#pragma unroll
  for (int j = 0; j < V; ++j) {
    label[j] = aligned || j < share.count ? pass.label(i + j * i_step) : -1;
    factor[j] = label[j] < 0 ? T(0) : common * pass.focal.alpha_negative;
    sum[j] = 0;
  }

  const scalar_t* next_x = x;
  scalar_t* next_dx = dx;
  for (int k = 0; k < pass.values; k += kAhead) {
    Vector<scalar_t> logits[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (k + u < pass.values) {
        const scalar_t* from = next_x + u * in.stride_value;
        if constexpr (aligned) {
          logits[u] = load_vector(from);
        } else {
#pragma unroll
          for (int j = 0; j < V; ++j) {
            logits[u].x[j] = j < share.count ? from[j * share.step] : scalar_t(0);
          }
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (k + u < pass.values) {
        Vector<scalar_t> slopes;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const auto term = pass.template term<gamma_is_two>(logits[u].x[j]);
          sum[j] = label[j] == k + u ? sum[j] : sum[j] + term.value;
          slopes.x[j] = static_cast<scalar_t>(factor[j] * term.slope);
        }
        if (dx) {
          scalar_t* to = next_dx + u * out.stride_value;
          if constexpr (aligned) {
            store_vector(to, slopes);
          } else {
#pragma unroll
            for (int j = 0; j < V; ++j) {
              if (j < share.count) {
                to[j * share.step] = slopes.x[j];
              }
            }
          }
        }
      }
    }
    next_x += kAhead * in.stride_value;
    next_dx += kAhead * out.stride_value;
  }

  Stats stats;
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (label[j] >= 0) {
      T loss = pass.focal.alpha_negative * sum[j];
      if (label[j] < pass.values) {
        loss += pass.own(
            x[label[j] * in.stride_value + j * share.step],
            dx + label[j] * out.stride_value + j * share.step, common);
      }
      stats.add(loss);
    } else if (dx && j < share.count && !is_finite(sum[j])) {
      for (int k = 0; k < pass.values; ++k) {  // a factor of 0 is not enough for inf and NaN
        dx[k * out.stride_value + j * share.step] = 0;
      }
    }
  }
  return stats;
}

// Contiguous (N, A * K, H, W): each channel lies side by side position by position.
template <bool gamma_is_two, typename T, typename scalar_t>
__global__ void __launch_bounds__(kThreads, (kResidentBlocks<gamma_is_two, scalar_t>))
    focal_planes_kernel(const __grid_constant__ FocalPass<T, scalar_t> pass) {
  const Plan::Place place = pass.plan.place();
  const bool aligned = pass.plan.aligned[place.level];
  const PlaneShare share(pass.in.items[place.level], aligned, place.block * kThreads + threadIdx.x);
  Stats stats;
  if (share.count > 0) {
    stats = aligned ? focal_planes<gamma_is_two, true>(pass, place, share)
                    : focal_planes<gamma_is_two, false>(pass, place, share);
  }
  if (pass.parts) {
    store_part(stats, pass.parts);
  }
}

}  // namespace alwa_d2
