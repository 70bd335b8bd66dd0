#pragma once

#include <cstdint>
#include <type_traits>

#include "levels.h"
#include "losses/elementary.h"
#include "stats.h"

// What kernels share on the device: vectors of four numbers, which block takes what, and sums that
// do not depend on the order in which blocks finish.

namespace alwa_d2 {

// Of every block.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Numbers that a thread reads or writes at a time where the memory allows: 16 bytes in float32, the
// most that one instruction moves, and 8 in the half types, where longer vectors would fit fewer
// heads and need more registers.
constexpr int kVector = 4;

template <typename scalar_t>
struct alignas(sizeof(scalar_t) == 2 ? 8 : 16) Vector {
  scalar_t x[kVector];
};

// What one instruction loads or stores; two of them are a Vector in float64.
template <typename scalar_t>
using Word = std::conditional_t<sizeof(scalar_t) == 2, uint2, uint4>;

template <typename scalar_t>
struct Words {
  static constexpr int kSize = sizeof(Vector<scalar_t>) / sizeof(Word<scalar_t>);
  Word<scalar_t> x[kSize];
};

// For what is read once, or written for later: it need not stay in the caches. The intrinsics also
// keep the compiler from splitting one load or store into several.
template <typename scalar_t>
__device__ Vector<scalar_t> load_vector(const scalar_t* from) {
  Words<scalar_t> words;
#pragma unroll
  for (int i = 0; i < words.kSize; ++i) {
    words.x[i] = __ldcs(reinterpret_cast<const Word<scalar_t>*>(from) + i);
  }
  return alwa_d2::bit_cast<Vector<scalar_t>>(words);
}

template <typename scalar_t>
__device__ void store_vector(scalar_t* to, const Vector<scalar_t>& vector) {
  const auto words = alwa_d2::bit_cast<Words<scalar_t>>(vector);
#pragma unroll
  for (int i = 0; i < words.kSize; ++i) {
    __stcs(reinterpret_cast<Word<scalar_t>*>(to) + i, words.x[i]);
  }
}

// How a launch's blocks are spread over the images and levels of a batch.
struct Plan {
  int blocks_per_image = 0;
  int first_block[Levels<float>::kMost + 1] = {};  // of each level, among an image's
  bool aligned[Levels<float>::kMost] = {};         // whether vectors may be read and written

  struct Place {
    int image, level, block;  // the block among those of the image's level
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

// Up to kVector positions of a plane, those of one anchor index a. Where the plane is aligned they
// lie side by side; otherwise `step` apart, so that neighbouring shares have neighbouring
// positions.
struct PlaneShare {
  int a, first, step;
  int count;  // how many there are; 0 beyond the last share

  // The share of this number, of all of a level's planes.
  template <typename scalar_t>
  __device__ PlaneShare(const Level<scalar_t>& level, bool aligned, int number) {
    const int per_position = static_cast<int>(level.per_position);
    const int positions = static_cast<int>(level.anchors) / per_position;
    const int shares = (positions + kVector - 1) / kVector;  // of a plane
    a = number / shares;
    const int mine = number - a * shares;
    first = aligned ? mine * kVector : mine;
    step = aligned ? 1 : shares;
    count = a >= per_position ? 0
        : aligned             ? kVector
                              : min(kVector, (positions - mine - 1) / step + 1);
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

// The statistics of `size` neighbouring lanes, a power of 2, merged in a fixed tree; all of them
// get the result.
__device__ inline Stats lanes_total(Stats mine, int size) {
  for (int lane = size / 2; lane > 0; lane /= 2) {
    const auto others = [&](double x) { return __shfl_xor_sync(0xffffffff, x, lane); };
    mine.merge(
        {others(mine.count), others(mine.sum), others(mine.sum_of_squares), others(mine.min),
         others(mine.max)});
  }
  return mine;
}

// The statistics of all threads of a block, merged in a fixed tree; thread 0 gets them. A kernel
// may call it once.
__device__ inline Stats block_total(const Stats& mine) {
  __shared__ double shared[kWarps][Stats::kSize];
  const Stats of_warp = lanes_total(mine, 32);
  if (threadIdx.x % 32 == 0) {
    of_warp.store(shared[threadIdx.x / 32]);
  }
  __syncthreads();
  Stats total;
  if (threadIdx.x < 32) {
    total = lanes_total(Stats::load(shared[threadIdx.x % kWarps]), kWarps);
  }
  return total;
}

// Writes a block's statistics, which thread 0 has, to its row of parts (blocks, 5).
__device__ inline void store_total(const Stats& total, double* parts) {
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
