#pragma once

#include <cstdint>

#include "stats.h"

// Loops over the losses of single logits and of anchors. T: float, double.

namespace alwa_d2 {

// The losses of an anchor's classes are always summed in this order, whatever the layout: eight
// partial sums, of the classes of equal c % 8, then ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
// Eight float32 numbers fill a register of AVX2.
constexpr int kPartialSums = 8;

// The second step, for partial sums get(0) .. get(n - 1); the others are 0.
template <int n, int first = 0, int step = 1, typename F>
inline __attribute__((always_inline)) auto fold(const F& get) {
  if constexpr (step == kPartialSums) {
    return get(first);
  } else if constexpr (first + step >= n) {
    return fold<n, first, 2 * step>(get);
  } else {
    return fold<n, first, 2 * step>(get) + fold<n, first + step, 2 * step>(get);
  }
}

// sums[i] is the sum of row i of k numbers, times `factor`.
template <typename T>
void sums_of_rows(const T* x, int64_t rows, int64_t k, T factor, T* sums);

// The second step for n rows whose partial sums lie in min(k, 8) columns of n numbers:
// sums[i * step] is the sum of row i, times `factor`.
template <typename T>
void fold_columns(const T* partial, int64_t n, int64_t k, T factor, T* sums, int64_t step);

// sums[i] += x[i].
template <typename T>
void add_to(T* sums, const T* x, int64_t n);

// Statistics of the losses of those anchors whose label is not -1 (ignore).
template <typename T>
Stats stats_of_anchors(const T* losses, const int64_t* labels, int64_t n);

// Writes the indices of the labels other than `background`. Returns how many there are.
int64_t find_others(const int64_t* labels, int64_t n, int64_t background, int32_t* indices);

}  // namespace alwa_d2
