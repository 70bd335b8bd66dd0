#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <limits>

#include "matching.h"

// Anchors as the CPU side of label_anchors takes them: in chunks of neighbours, since most ground
// truths are far from most chunks.

namespace alwa_d2 {

// In float32 a chunk's columns and its Best are 14 KB: less than half of a first-level cache.
constexpr int kChunk = 512;

// A chunk's anchors as columns. Where the last chunk has fewer, the rest is 0: it overlaps nothing.
template <typename T>
struct Chunk {
  T x1[kChunk] = {}, y1[kChunk] = {}, x2[kChunk] = {}, y2[kChunk] = {}, area[kChunk] = {};
  int size;
  // Least x1 and y1, greatest x2 and y2.
  T left = std::numeric_limits<T>::infinity(), top = left, right = -left, bottom = -left;

  // Chunk c of anchors (R, 4), contiguous.
  Chunk(const at::Tensor& anchors, int64_t c) {
    const int64_t first = c * kChunk;
    const T* data = anchors.const_data_ptr<T>() + 4 * first;
    size = static_cast<int>(std::min<int64_t>(kChunk, anchors.size(0) - first));
    for (int j = 0; j < size; ++j) {
      const MatchBox<T> a = match_box(data + 4 * j);
      x1[j] = a.x1, y1[j] = a.y1, x2[j] = a.x2, y2[j] = a.y2, area[j] = a.area;
      left = std::min(left, a.x1), right = std::max(right, a.x2);
      top = std::min(top, a.y1), bottom = std::max(bottom, a.y2);
    }
  }

  MatchBox<T> box(int j) const { return {x1[j], y1[j], x2[j], y2[j], area[j]}; }

  // Whether an anchor of the chunk may overlap this box: if not, all IoUs are 0. It holds for boxes
  // with x2 < x1 too: the right end of an intersection is never greater than either x2, the left
  // end never less than either x1.
  bool may_overlap(const MatchBox<T>& gt) const {
    return gt.x1 < right && gt.x2 > left && gt.y1 < bottom && gt.y2 > top;
  }
};

inline int64_t number_of_chunks(const at::Tensor& anchors) {
  return (anchors.size(0) + kChunk - 1) / kChunk;
}

// The highest IoU of each anchor of a chunk, and the first ground truth that gives it.
template <typename T>
struct Best {
  T iou[kChunk];
  Int<T> index[kChunk];
};

// Updates `best` with ground truth g, and returns the bits of its highest IoU. The loop has no
// branches, and its maximum is one of integers: otherwise the compiler would not vectorise it.
template <typename T>
__attribute__((always_inline)) inline Int<T> match_chunk(
    const Chunk<T>& chunk, const MatchBox<T>& gt, Int<T> g, Best<T>* __restrict__ best) {
  Int<T> highest = 0;
  for (int j = 0; j < kChunk; ++j) {
    const T iou = match_iou(gt, chunk.box(j)), before = best->iou[j];
    highest = std::max(highest, bits_of(iou));
    best->index[j] = iou > before ? g : best->index[j];
    best->iou[j] = iou > before ? iou : before;
  }
  return highest;
}

}  // namespace alwa_d2
