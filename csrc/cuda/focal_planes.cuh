#pragma once

#include "cuda/focal_pass.cuh"

namespace alwa_d2 {

// A block takes kShares PlaneShares. kSlices threads work on each: a thread goes through a slice of
// the classes at all positions of its share, and ends the anchor at one of them.
constexpr int kSlices = kVector;
constexpr int kShares = kThreads / kSlices;

// Channels whose loads are under way together.
constexpr int kPlanesAhead = 4;

// Of a thread: labels and sums of its share's positions.
template <typename T>
struct PlaneSums {
  int label[kVector];
  T factor[kVector];  // what the slope of a negative is multiplied with
  T sum[kVector];     // of losses
};

// Goes through a thread's slice of the channels, the first of which lies at x: writes their
// gradients, and adds up their losses.
template <bool gamma_is_two, bool aligned, typename T, typename scalar_t>
__device__ void focal_slice(
    const FocalPass<T, scalar_t>& pass, const PlaneShare& share, int slice, const scalar_t* x,
    int64_t x_step, scalar_t* dx, int64_t dx_step, PlaneSums<T>& sums) {
  const int channels = (pass.values + kSlices - 1) / kSlices;
  const int end = min(pass.values, (slice + 1) * channels);
  x += slice * channels * x_step;
  dx += slice * channels * dx_step;
  for (int k = slice * channels; k < end; k += kPlanesAhead) {
    Vector<scalar_t> logits[kPlanesAhead];
#pragma unroll
    for (int u = 0; u < kPlanesAhead; ++u) {
      if (k + u < end) {
        const scalar_t* from = x + u * x_step;
        if constexpr (aligned) {
          logits[u] = load_vector(from);
        } else {
#pragma unroll
          for (int j = 0; j < kVector; ++j) {
            logits[u].x[j] = j < share.count ? from[j * share.step] : scalar_t(0);
          }
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kPlanesAhead; ++u) {
      if (k + u < end) {
        Vector<scalar_t> slopes;
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          const auto term = pass.template term<gamma_is_two>(logits[u].x[j]);
          sums.sum[j] = sums.label[j] == k + u ? sums.sum[j] : sums.sum[j] + term.value;
          slopes.x[j] = static_cast<scalar_t>(sums.factor[j] * term.slope);
        }
        if (pass.with_gradients) {
          scalar_t* to = dx + u * dx_step;
          if constexpr (aligned) {
            store_vector(to, slopes);
          } else {
#pragma unroll
            for (int j = 0; j < kVector; ++j) {
              if (j < share.count) {
                to[j * share.step] = slopes.x[j];
              }
            }
          }
        }
      }
    }
    x += kPlanesAhead * x_step;
    dx += kPlanesAhead * dx_step;
  }
}

// Contiguous (N, A * K, H, W): each channel lies side by side position by position.
template <bool gamma_is_two, typename T, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    focal_planes_kernel(const __grid_constant__ FocalPass<T, scalar_t> pass) {
  __shared__ int labels[kThreads];
  __shared__ T losses[kThreads];
  __shared__ T sums[kSlices][kThreads];  // of each anchor
  const Plan::Place place = pass.plan.place();
  const auto& in = pass.in.items[place.level];
  const auto& out = pass.out.items[place.level];
  const bool aligned = pass.plan.aligned[place.level];
  // The thread's anchor is at position `mine` of the share, and its slice has the same number.
  const int number = threadIdx.x % kShares, mine = threadIdx.x / kShares;
  const PlaneShare share(in, aligned, place.block * kShares + number);
  const T common = pass.common();

  const bool has_anchor = mine < share.count;
  const int64_t first = share.anchor(in, place.image, pass.anchors);
  labels[threadIdx.x] = has_anchor ? pass.label(first + mine * share.step * in.per_position) : -1;
  __syncthreads();
  if (share.count > 0) {
    PlaneSums<T> of_slice;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const int label = labels[j * kShares + number];
      of_slice.label[j] = label;
      of_slice.factor[j] = label < 0 ? T(0) : common * pass.focal.alpha_negative;
      of_slice.sum[j] = 0;
    }
    if (aligned) {
      focal_slice<gamma_is_two, true>(
          pass, share, mine, share.memory(in, place.image), in.stride_value,
          share.memory(out, place.image), out.stride_value, of_slice);
    } else {
      focal_slice<gamma_is_two, false>(
          pass, share, mine, share.memory(in, place.image), in.stride_value,
          share.memory(out, place.image), out.stride_value, of_slice);
    }
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      sums[mine][j * kShares + number] = of_slice.sum[j];
    }
  }
  __syncthreads();
  if (has_anchor) {
    T sum = 0;
#pragma unroll
    for (int slice = 0; slice < kSlices; ++slice) {
      sum += sums[slice][threadIdx.x];
    }
    losses[threadIdx.x] = pass.end_anchor(
        labels[threadIdx.x], sum, share.memory(in, place.image) + mine * share.step,
        in.stride_value, share.memory(out, place.image) + mine * share.step, out.stride_value,
        common);
  }
  pass.store_losses(losses, labels);
}

}  // namespace alwa_d2
