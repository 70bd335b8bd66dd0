#pragma once

#include <cmath>

#include "cuda/block.cuh"
#include "losses/focal.h"

// The focal loss in one pass over the logits: losses, statistics, and gradients where there is
// memory for them. There are three kernels, for the ways in which the K logits of an anchor lie in
// memory: focal_planes.cuh, focal_rows.cuh and focal_strided.cuh. All take every logit as one of a
// class that is not its anchor's, but leave the anchor's own logit out of the sum.
//
// A block takes up to kThreads anchors. Several threads share the logits of an anchor. After that,
// each thread ends one anchor: it corrects loss and gradient of the own logit.

namespace alwa_d2 {

// Blocks that the registers of a multiprocessor are enough for: 32 warps in float32 and the half
// types, so that some compute while others wait for memory.
template <typename T>
constexpr int kResidentBlocks = sizeof(T) == 4 ? 4 : 1;

template <typename T, typename scalar_t>
struct FocalPass {
  Levels<const scalar_t> in;
  Levels<scalar_t> out;
  bool with_gradients;  // whether `out` is there
  Plan plan;
  const int64_t* labels;  // (N, R)
  int64_t anchors;        // R
  int values;             // K
  Focal<T> focal;
  CommonFactor<T> common;
  double* parts;            // (blocks, 5), or null where only gradients are wanted
  int tile = 0, chunk = 0;  // focal_rows_kernel: anchors of a block, and of a warp at a time
  int lanes = 1;            // focal_strided_kernel: threads that share an anchor, a power of 2

  // The label of anchor i of the batch.
  __device__ int label(int64_t i) const {
    const int64_t label = labels[i];
    CUDA_KERNEL_ASSERT(static_cast<uint64_t>(label) + 1 <= static_cast<uint64_t>(values) + 1);
    return static_cast<int>(label);
  }

  // Where the gradients of an image's anchor r lie; null without gradients.
  __device__ scalar_t* gradients_of(const Plan::Place& place, int64_t r) const {
    return with_gradients ? out.items[place.level].values(place.image, r) : nullptr;
  }

  // Loss and slope of a logit whose class is not the anchor's.
  template <bool gamma_is_two>
  __device__ auto term(scalar_t x) const {
    constexpr bool rough = sizeof(scalar_t) == 2;
    return focal.template term<gamma_is_two, rough>(static_cast<T>(x));
  }

  // Ends an anchor with the sum of all other classes' losses, and returns its loss. Its K logits
  // lie at x, the gradients at dx.
  __device__ T end_anchor(
      int label, T sum, const scalar_t* x, int64_t x_step, scalar_t* dx, int64_t dx_step,
      T common_factor) const {
    T loss = focal.alpha_negative * sum;
    if (0 <= label && label < values) {
      const auto own = focal(static_cast<T>(x[label * x_step]), true);
      loss += own.value;
      if (with_gradients) {
        dx[label * dx_step] = static_cast<scalar_t>(common_factor * own.slope);
      }
    }
    if (label < 0 && with_gradients && sum - sum != 0) {  // 0 times inf or NaN is not 0
      for (int k = 0; k < values; ++k) {
        dx[k * dx_step] = 0;
      }
    }
    return loss;
  }

  // Writes the statistics of a block's anchors: those whose label is not negative. All threads have
  // to call it; both arrays are in shared memory.
  __device__ void store_losses(const T (&losses)[kThreads], const int (&of_block)[kThreads]) const {
    if (parts == nullptr) {
      return;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      Stats stats;
      for (int i = threadIdx.x; i < kThreads; i += 32) {
        if (of_block[i] >= 0) {
          stats.add(losses[i]);
        }
      }
      store_total(lanes_total(stats, 32), parts);
    }
  }
};

}  // namespace alwa_d2
