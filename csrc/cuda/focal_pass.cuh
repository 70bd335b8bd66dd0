#pragma once

#include <cmath>

#include "cuda/block.cuh"
#include "losses/focal.h"

// The focal loss in one pass over the logits: losses, statistics, and gradients where there is
// memory for them. There are two kernels, focal_planes.cuh and focal_rows.cuh, for the two ways in
// which the K logits of an anchor lie in memory. Both take every logit as one of a class that is
// not its anchor's, but leave the anchor's own logit out of the sum. After the loop the thread that
// has written its gradient corrects loss and gradient.

namespace alwa_d2 {

// Blocks that the registers of a multiprocessor are enough for, 24 or 16 warps. That is few, but
// each thread has 4 or 5 loads of 16 bytes under way: together more than memory can answer.
template <bool gamma_is_two, typename scalar_t>
constexpr int kResidentBlocks = gamma_is_two && sizeof(scalar_t) == 4 ? 3 : 2;

template <typename T, typename scalar_t>
struct FocalPass {
  Levels<const scalar_t> in;
  Levels<scalar_t> out;
  bool with_gradients;  // whether `out` is there
  Plan plan;
  int lanes;              // focal_rows_kernel: threads that share an anchor, 1 to 32, a power of 2
  const int64_t* labels;  // (N, R)
  int64_t anchors;        // R
  int values;             // K
  Focal<T> focal;
  CommonFactor<T> common;
  double* parts;  // (blocks, 5), or null where only gradients are wanted

  __device__ int label(int64_t i) const {
    const int64_t label = labels[i];
    CUDA_KERNEL_ASSERT(static_cast<uint64_t>(label) + 1 <= static_cast<uint64_t>(values) + 1);
    return static_cast<int>(label);
  }

  // Loss and slope of a logit whose class is not the anchor's.
  template <bool gamma_is_two>
  __device__ auto term(scalar_t x) const {
    constexpr bool rough = sizeof(scalar_t) == 2;
    return focal.template term<gamma_is_two, rough>(static_cast<T>(x));
  }

  // Returns the loss of an anchor's own class, and writes its gradient.
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

}  // namespace alwa_d2
