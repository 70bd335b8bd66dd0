#pragma once

#include <cmath>

#include "cuda/block.cuh"
#include "losses/focal.h"

// The focal loss in one pass over the logits: losses, statistics, and gradients where there is
// memory for them. Two kernels, for the two ways in which K logits of an anchor lie in memory. In
// either every logit is taken as one of a class that is not its anchor's; the anchor's own one is
// left out of the sum, and put right after the loop by the thread that wrote its gradient.

namespace alwa_d2 {

// Blocks that fit on a multiprocessor by their threads' registers, 24 or 16 warps: few, but each
// thread has 4 or 5 loads of 16 bytes under way, which together are more than memory can answer.
template <bool gamma_is_two, typename scalar_t>
constexpr int kResidentBlocks = gamma_is_two && sizeof(scalar_t) == 4 ? 3 : 2;

template <typename T, typename scalar_t>
struct FocalPass {
  Levels<const scalar_t> in;
  Levels<scalar_t> out;
  bool with_gradients;  // whether `out` is there
  Plan plan;
  int lanes;              // rows_kernel: threads that share an anchor, 1 to 32, a power of 2
  const int64_t* labels;  // (N, R)
  int64_t anchors;        // R
  int values;             // K
  Focal<T> focal;
  CommonFactor<T> common;
  double* parts;  // (blocks, 5), or null where only gradients are wanted

  __device__ int label(int64_t i) const {
    const int64_t label = labels[i];
    CUDA_KERNEL_ASSERT(static_cast<uint64_t>(label + 1) <= static_cast<uint64_t>(values) + 1);
    return static_cast<int>(label);
  }

  // Of a class that is not the anchor's.
  template <bool gamma_is_two>
  __device__ auto term(scalar_t x) const {
    constexpr bool rough = sizeof(scalar_t) == 2;
    return focal.template term<gamma_is_two, rough>(static_cast<T>(x));
  }

  // The loss of an anchor's own class; writes its gradient.
  __device__ T own(scalar_t x, scalar_t* dx, T factor) const {
    const auto term = focal(static_cast<T>(x), true);
    if (with_gradients) {
      *dx = static_cast<scalar_t>(factor * term.slope);
    }
    return term.value;
  }
};

template <typename T>
__device__ bool is_finite(T x) {
  return x - x == 0;
}

// The positions of a PlaneShare, class after class.
template <bool gamma_is_two, bool aligned, typename T, typename scalar_t>
__device__ Stats focal_planes(
    const FocalPass<T, scalar_t>& pass, const Plan::Place& place, const PlaneShare& share) {
  constexpr int V = Vector<scalar_t>::kSize;
  constexpr int kAhead = 4;  // channels whose loads are under way together
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
  const PlaneShare share(
      pass.in.items[place.level], aligned, place.block * kThreads + threadIdx.x);
  Stats stats;
  if (share.count > 0) {
    stats = aligned ? focal_planes<gamma_is_two, true>(pass, place, share)
                    : focal_planes<gamma_is_two, false>(pass, place, share);
  }
  if (pass.parts) {
    store_part(stats, pass.parts);
  }
}

// The share that thread `lane` of pass.lanes has in the loss of one anchor: the K logits at x, read
// as vectors where they lie side by side.
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
    for (int at = lane; at < end; at += pass.lanes) {  // a factor of 0 is not enough for inf and NaN
      for (int j = 0; j < V; ++j) {
        dx[(at * V + j) * dx_step] = 0;
      }
    }
  }
  return loss;
}

constexpr int kRowAnchors = 2 * kThreads;  // of a level of an image, a block's

// Everything else: anchor by anchor, best where an anchor's logits lie side by side (flat,
// channels last).
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
        loss = focal_row<gamma_is_two, true>(
            pass, x + at, 1, dx + at, 1, label, lane, common);
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
