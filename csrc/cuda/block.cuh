#pragma once

#include <cstdint>

#include "levels.h"
#include "losses/elementary.h"
#include "stats.h"

// What kernels share on the device: vectors of 16 bytes, which block takes what, and sums that do
// not depend on the order in which blocks finish.

namespace alwa_d2 {

// Of every block: a power of 2, for the tree of block_total, and few enough for two blocks on a
// multiprocessor with up to 128 registers a thread.
constexpr int kThreads = 256;

// What a thread reads or writes at a time where the memory allows.
template <typename scalar_t>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(scalar_t);
  scalar_t x[kSize];
};

// For what is read once, or written for later: it need not stay in the caches. The intrinsics also
// keep the compiler from splitting one load or store into several.
template <typename scalar_t>
__device__ Vector<scalar_t> load_vector(const scalar_t* from) {
  return alwa_d2::bit_cast<Vector<scalar_t>>(__ldcs(reinterpret_cast<const uint4*>(from)));
}

template <typename scalar_t>
__device__ void store_vector(scalar_t* to, const Vector<scalar_t>& vector) {
  __stcs(reinterpret_cast<uint4*>(to), alwa_d2::bit_cast<uint4>(vector));
}

// How a launch's blocks are spread over the images and levels of a batch.
struct Plan {
  int blocks_per_image = 0;
  int first_block[Levels<float>::kMost + 1] = {};  // of each level, among an image's
  bool aligned[Levels<float>::kMost] = {};         // whether vectors may be read and written

  struct Place {
    int64_t image;
    int level, block;  // the block among those of the image's level
  };

  __device__ Place place() const {
    const int image = blockIdx.x / blocks_per_image;
    const int block = blockIdx.x - image * blocks_per_image;
    int level = 0;
    while (block >= first_block[level + 1]) {
      ++level;
    }
    return {image, level, block - first_block[level]};
  }
};

// A thread's share of a plane: positions of one anchor index a. Where the plane is aligned they lie
// side by side; otherwise `step` apart, so that neighbouring threads have neighbouring positions.
struct PlaneShare {
  int a, first, step;
  int count;  // how many there are; 0 for a thread without work

  template <typename scalar_t>
  __device__ PlaneShare(const Level<scalar_t>& level, bool aligned, int thread) {
    constexpr int most = Vector<scalar_t>::kSize;
    const int per_position = static_cast<int>(level.per_position);
    const int positions = static_cast<int>(level.anchors) / per_position;
    const int threads = (positions + most - 1) / most;  // of a plane
    a = thread / threads;
    const int mine = thread - a * threads;
    first = aligned ? mine * most : mine;
    step = aligned ? 1 : threads;
    count = a >= per_position ? 0 : aligned ? most : min(most, (positions - mine - 1) / step + 1);
  }

  // Where the share's first position lies in the first of the K channels of an image.
  template <typename scalar_t>
  __device__ scalar_t* memory(const Level<scalar_t>& level, int64_t image) const {
    return level.data + image * level.stride_image + a * level.stride_anchor + first;
  }

  // The index, in a batch of R anchors an image, of the anchor at the share's first position. At
  // each next position it is step * per_position greater.
  template <typename scalar_t>
  __device__ int64_t anchor(const Level<scalar_t>& level, int64_t image, int64_t anchors) const {
    return image * anchors + level.first + int64_t(first) * level.per_position + a;
  }
};

// The statistics of all threads of a block, merged in a fixed tree; thread 0 gets them.
__device__ inline Stats block_total(Stats mine) {
  __shared__ Stats shared[kThreads];
  shared[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      shared[threadIdx.x].merge(shared[threadIdx.x + half]);
    }
  }
  Stats total;
  if (threadIdx.x == 0) {
    total = shared[0];
  }
  __syncthreads();  // shared may be written again
  return total;
}

// Writes a block's statistics to its row of parts (blocks, 5).
__device__ inline void store_part(const Stats& mine, double* parts) {
  const Stats total = block_total(mine);
  if (threadIdx.x == 0) {
    total.store(parts + int64_t(blockIdx.x) * Stats::kSize);
  }
}

// What a gradient is multiplied with, read on the device: the incoming gradient of a reduced loss
// (null where it is 1), scale and factor.
template <typename T>
struct CommonFactor {
  const T* grad;
  const double* scale;
  double factor;

  __device__ T operator()() const {
    return static_cast<T>((grad ? *grad : T(1)) * (scale ? *scale * factor : factor));
  }
};

}  // namespace alwa_d2
