#pragma once

#include "cuda/focal_pass.cuh"

namespace alwa_d2 {

// Vectors that a warp reads at a time, at most: a chunk of 8 anchors with K = 80, of 32 with 20.
constexpr int kRowAhead = 5;
constexpr int kRowVectors = 32 * kRowAhead;
// Losses of vectors that a block has room for, those of kThreads anchors with K = 80. Neighbouring
// anchors' are an odd number apart, so that they lie in different banks of shared memory.
constexpr int kRowLosses = kThreads * 21;

ALWA_HOST_DEVICE int row_losses_apart(int vectors) { return vectors | 1; }

// A warp takes a chunk of anchors, whose logits lie at x. Each of its loads reads 32 vectors side
// by side, whichever anchors they are of. It writes gradients, and for each vector its loss.
template <bool gamma_is_two, typename T, typename scalar_t>
struct FocalChunk {
  const FocalPass<T, scalar_t>& pass;
  T negative;             // what the slope of a negative is multiplied with
  int vectors;            // of an anchor
  int anchor[kRowAhead];  // of each load: which of the chunk's anchors the thread's vector is of

  __device__ FocalChunk(const FocalPass<T, scalar_t>& pass_, T negative_)
      : pass(pass_), negative(negative_), vectors(pass_.values / kVector) {
#pragma unroll
    for (int u = 0; u < kRowAhead; ++u) {
      anchor[u] = (threadIdx.x % 32 + 32 * u) / vectors;
    }
  }

  // All threads of the warp have a vector in each load if `full`, else those of the first n
  // anchors.
  template <bool full>
  __device__ void run(int n, const scalar_t* x, scalar_t* dx, const int* labels, T* losses) const {
    const int first = threadIdx.x % 32;
    Vector<scalar_t> logits[kRowAhead];
#pragma unroll
    for (int u = 0; u < kRowAhead; ++u) {
      if (full || anchor[u] < n) {
        logits[u] = load_vector(x + kVector * (first + 32 * u));
      }
    }
#pragma unroll
    for (int u = 0; u < kRowAhead; ++u) {
      if (full || anchor[u] < n) {
        const int v = first + 32 * u;
        const int label = labels[anchor[u]];
        const int own = label - kVector * (v - anchor[u] * vectors);  // among the vector's logits
        const T factor = label < 0 ? T(0) : negative;
        Vector<scalar_t> slopes;
        T values[kVector];
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          const auto term = pass.template term<gamma_is_two>(logits[u].x[j]);
          values[j] = term.value;
          slopes.x[j] = static_cast<scalar_t>(factor * term.slope);
        }
        T sum = 0;
#pragma unroll
        for (int j = 0; j < kVector; ++j) {
          sum = own == j ? sum : sum + values[j];
        }
        losses[v + (vectors % 2 == 0 ? anchor[u] : 0)] = sum;
        if (pass.with_gradients) {
          store_vector(dx + kVector * v, slopes);
        }
      }
    }
  }
};

// An anchor's logits lie side by side, anchor after anchor (flat, channels last), in whole vectors.
// A block takes a tile of anchors, and each of its warps a chunk of it after the other.
template <bool gamma_is_two, typename T, typename scalar_t>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<T>)
    focal_rows_kernel(const __grid_constant__ FocalPass<T, scalar_t> pass) {
  __shared__ int labels[kThreads];
  __shared__ T losses[kThreads];
  __shared__ T vector_losses[kRowLosses];
  const Plan::Place place = pass.plan.place();
  const auto& in = pass.in.items[place.level];
  const auto& out = pass.out.items[place.level];
  const int64_t first = int64_t(place.block) * pass.tile;  // among the level's anchors
  const int count = static_cast<int>(min(int64_t(pass.tile), in.anchors - first));
  const scalar_t* const x = in.data + place.image * in.stride_image + first * pass.values;
  scalar_t* const dx = out.data + place.image * out.stride_image + first * pass.values;
  const int mine = threadIdx.x;

  const bool has_anchor = mine < count;
  labels[mine] = has_anchor ? pass.label(place.image * pass.anchors + in.first + first + mine) : -1;
  __syncthreads();
  const FocalChunk<gamma_is_two, T, scalar_t> of_warp(
      pass, pass.common() * pass.focal.alpha_negative);
  const int apart = row_losses_apart(of_warp.vectors);
  const bool fills = pass.chunk * of_warp.vectors == kRowVectors;
  for (int c = mine / 32 * pass.chunk; c < count; c += kWarps * pass.chunk) {
    const int n = min(pass.chunk, count - c);
    const int64_t at = int64_t(c) * pass.values;
    if (fills && n == pass.chunk) {
      of_warp.template run<true>(n, x + at, dx + at, labels + c, vector_losses + c * apart);
    } else {
      of_warp.template run<false>(n, x + at, dx + at, labels + c, vector_losses + c * apart);
    }
  }
  __syncthreads();
  if (has_anchor) {
    T sum = 0;
    for (int v = 0; v < of_warp.vectors; ++v) {
      sum += vector_losses[mine * apart + v];
    }
    const int64_t at = int64_t(mine) * pass.values;
    // pass.common() is read again: a register kept for it all the time would be one too many.
    losses[mine] = pass.end_anchor(labels[mine], sum, x + at, 1, dx + at, 1, pass.common());
  }
  pass.store_losses(losses, labels);
}

}  // namespace alwa_d2
