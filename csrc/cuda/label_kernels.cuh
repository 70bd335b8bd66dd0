#pragma once

#include "cuda/block.cuh"
#include "matching.h"

namespace alwa_d2 {

// The images of a launch. The host knows where their ground truth lies, and gives the kernels
// pointers by value: nothing is concatenated. 64 images take 1.5 of the 4 KB of parameters.
template <typename T>
struct Images {
  static constexpr int kMost = 64;
  int count;
  const T* boxes[kMost];          // (G, 4) of each image
  const int64_t* classes[kMost];  // (G,); null where they are not known
  int size[kMost];                // G
  int first[kMost];               // its first ground truth among those of the launch
};

template <typename T>
struct Problem {
  int64_t count;                       // R
  const T* anchors;                    // (R, 4)
  Int<T>* highest;                     // (sum of G,), bits of each ground truth's highest IoU
  bool low_quality;                    // whether these IoUs are wanted
  int64_t* labels;                     // (N, R)
  T* boxes;                            // (N, R, 4)
  unsigned long long* num_foreground;  // ()
};

template <typename T>
struct alignas(4 * sizeof(T)) Row {
  T x[4];
};

template <typename T>
__device__ MatchBox<T> anchor_of(const Problem<T>& p, int64_t r) {
  // Threads beyond the end take part with a box that overlaps nothing.
  if (r >= p.count) {
    return {};
  }
  const Row<T> row = *reinterpret_cast<const Row<T>*>(p.anchors + 4 * r);
  return match_box(row.x);
}

template <typename T>
__device__ bool takes_part(const Images<T>& images, int64_t g) {
  const int64_t* classes = images.classes[blockIdx.y];
  return classes == nullptr || !is_padding(classes[g]);
}

// Every thread runs f(g, i, box) for each of an image's ground truths that is no padding: its
// number is g, and its box is the i-th of a tile in shared memory. One thread runs before(g, i) and
// after(g, i) for each of a tile, padding too.
template <typename T, typename Before, typename F, typename After>
__device__ void for_each_gt(
    const Images<T>& images, const Before& before, const F& f, const After& after) {
  __shared__ MatchBox<T> tile[kThreads];
  __shared__ bool part[kThreads];
  const int total = images.size[blockIdx.y];
  for (int start = 0; start < total; start += kThreads) {
    const int mine = start + threadIdx.x;
    if (mine < total) {
      tile[threadIdx.x] = match_box(images.boxes[blockIdx.y] + 4 * int64_t(mine));
      part[threadIdx.x] = takes_part(images, mine);
      before(mine, threadIdx.x);
    }
    __syncthreads();
    const int size = min(total - start, kThreads);
    for (int i = 0; i < size; ++i) {
      if (part[i]) {  // the same for all threads
        f(start + i, i, tile[i]);
      }
    }
    __syncthreads();
    if (mine < total) {
      after(mine, threadIdx.x);
    }
  }
}

// The highest IoU of each ground truth, as a maximum of integers: it does not depend on the order
// of the blocks.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    highest_kernel(const __grid_constant__ Problem<T> p, const __grid_constant__ Images<T> images) {
  __shared__ Int<T> highest[kThreads];
  const MatchBox<T> anchor = anchor_of(p, blockIdx.x * int64_t(kThreads) + threadIdx.x);
  Int<T>* out = p.highest + images.first[blockIdx.y];
  for_each_gt(
      images, [&](int, int i) { highest[i] = 0; },
      [&](int, int i, const MatchBox<T>& gt) {
        Int<T> bits = bits_of(match_iou(gt, anchor));
        if (__any_sync(0xffffffff, bits > 0)) {
          for (int lane = 16; lane > 0; lane /= 2) {
            bits = max(bits, __shfl_xor_sync(0xffffffff, bits, lane));
          }
          if (threadIdx.x % 32 == 0) {
            atomicMax(&highest[i], bits);
          }
        }
      },
      [&](int g, int i) {
        if (highest[i] > 0) {
          atomicMax(&out[g], highest[i]);
        }
      });
}

// Labels and boxes. Computing the IoUs once more is cheaper than keeping them.
template <typename T>
__global__ void __launch_bounds__(kThreads) label_kernel(
    const __grid_constant__ Problem<T> p, const __grid_constant__ Images<T> images,
    const __grid_constant__ LabelRule<T> rule) {
  __shared__ Int<T> highest[kThreads];
  const int64_t r = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  const MatchBox<T> anchor = anchor_of(p, r);
  const Int<T>* all_highest = p.highest + images.first[blockIdx.y];
  T best = 0;
  int index = -1;  // of the first ground truth that takes part, until a better one comes
  bool low_quality = false;
  for_each_gt(
      images, [&](int g, int i) { highest[i] = p.low_quality ? all_highest[g] : -1; },
      [&](int g, int i, const MatchBox<T>& gt) {
        const T iou = match_iou(gt, anchor);
        index = iou > best || index < 0 ? g : index;
        best = iou > best ? iou : best;
        low_quality = low_quality || bits_of(iou) == highest[i];
      },
      [](int, int) {});
  bool is_foreground = false;
  if (r < p.count) {
    int64_t label = rule.background;
    Row<T> box{};
    if (index >= 0) {
      const int64_t* classes = images.classes[blockIdx.y];
      const int match = low_quality ? 1 : rule.match(best);
      label = rule.label(match, classes ? classes[index] : 0);
      is_foreground = match == 1 && label != rule.background;
      for (int k = 0; k < 4; ++k) {
        box.x[k] = images.boxes[blockIdx.y][4 * int64_t(index) + k];
      }
    }
    const int64_t i = blockIdx.y * p.count + r;
    p.labels[i] = label;
    *reinterpret_cast<Row<T>*>(p.boxes + 4 * i) = box;
  }
  const int foreground = __syncthreads_count(is_foreground);
  if (threadIdx.x == 0 && foreground > 0) {
    atomicAdd(p.num_foreground, static_cast<unsigned long long>(foreground));
  }
}

}  // namespace alwa_d2
