#include "cpu/sum_loops.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cpu/vectorize.h"

namespace alwa_d2 {
namespace {

// The sum of k numbers.
template <typename T>
inline __attribute__((always_inline)) T sum_of_row(const T* x, int64_t k) {
  typedef T Four __attribute__((vector_size(4 * sizeof(T))));
  typedef T Eight __attribute__((vector_size(kPartialSums * sizeof(T))));
  Eight sum = {}, eight;
  int64_t i = 0;
  for (; i + 8 <= k; i += 8) {
    std::memcpy(&eight, x + i, sizeof(eight));
    sum += eight;
  }
  Four half[2], four;
  std::memcpy(half, &sum, sizeof(half));
  int next = 0;  // half that the rest is added to
  if (i + 4 <= k) {
    std::memcpy(&four, x + i, sizeof(four));
    half[next++] += four;
    i += 4;
  }
  if (i < k) {
    const int64_t rest = k - i;
    half[next] += Four{x[i], rest > 1 ? x[i + 1] : T(0), rest > 2 ? x[i + 2] : T(0), T(0)};
  }
  four = half[0] + half[1];
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// For a number of classes k, at most kPartialSums, that is known when compiling.
template <int k, typename T>
inline __attribute__((always_inline)) void sums_of_short_rows(
    const T* __restrict x, int64_t rows, T factor, T* __restrict sums) {
  for (int64_t row = 0; row < rows; ++row) {
    sums[row] = factor * fold<k>([&](int j) { return x[row * k + j]; });
  }
}

template <int k, typename T>
inline __attribute__((always_inline)) void fold_k_columns(
    const T* __restrict partial, int64_t n, T factor, T* __restrict sums, int64_t step) {
  for (int64_t i = 0; i < n; ++i) {
    sums[i * step] = factor * fold<k>([&](int j) { return partial[j * n + i]; });
  }
}

}  // namespace

template <typename T>
ALWA_CLONES void sums_of_rows(const T* x, int64_t rows, int64_t k, T factor, T* sums) {
  switch (k) {
    case 1:
      return sums_of_short_rows<1>(x, rows, factor, sums);
    case 2:
      return sums_of_short_rows<2>(x, rows, factor, sums);
    case 3:
      return sums_of_short_rows<3>(x, rows, factor, sums);
    case 4:
      return sums_of_short_rows<4>(x, rows, factor, sums);
    default:
      for (int64_t row = 0; row < rows; ++row) {
        sums[row] = factor * sum_of_row(x + row * k, k);
      }
  }
}

template <typename T>
ALWA_CLONES void fold_columns(
    const T* partial, int64_t n, int64_t k, T factor, T* sums, int64_t step) {
  switch (k) {
    case 1:
      return fold_k_columns<1>(partial, n, factor, sums, step);
    case 2:
      return fold_k_columns<2>(partial, n, factor, sums, step);
    case 3:
      return fold_k_columns<3>(partial, n, factor, sums, step);
    case 4:
      return fold_k_columns<4>(partial, n, factor, sums, step);
    case 5:
      return fold_k_columns<5>(partial, n, factor, sums, step);
    case 6:
      return fold_k_columns<6>(partial, n, factor, sums, step);
    case 7:
      return fold_k_columns<7>(partial, n, factor, sums, step);
    default:
      return fold_k_columns<kPartialSums>(partial, n, factor, sums, step);
  }
}

template <typename T>
ALWA_CLONES void add_to(T* __restrict sums, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sums[i] += x[i];
  }
}

template <typename T>
ALWA_CLONES Stats stats_of_anchors(const T* losses, const int64_t* labels, int64_t n) {
  // Sums side by side, two registers of AVX-512 in float32. The compiler vectorises one short loop
  // for each statistic, not one loop for all.
  constexpr int kSums = 32;
  constexpr T inf = std::numeric_limits<T>::infinity();
  double sum[kSums] = {}, squares[kSums] = {};
  T least[kSums], most[kSums];
  std::fill_n(least, kSums, inf);
  std::fill_n(most, kSums, -inf);
  int64_t count = 0;
  T last_losses[kSums] = {};
  int64_t last_labels[kSums];
  for (int64_t i = 0; i < n; i += kSums) {
    const T* loss = losses + i;
    const int64_t* label = labels + i;
    if (i + kSums > n) {
      std::copy_n(loss, n - i, last_losses);
      std::fill(std::copy_n(label, n - i, last_labels), last_labels + kSums, -1);
      loss = last_losses;
      label = last_labels;
    }
    T x[kSums], low[kSums], high[kSums];
    for (int j = 0; j < kSums; ++j) {
      count += label[j] >= 0;
    }
    for (int j = 0; j < kSums; ++j) {
      x[j] = label[j] >= 0 ? loss[j] : 0;
      low[j] = label[j] >= 0 ? loss[j] : inf;
      high[j] = label[j] >= 0 ? loss[j] : -inf;
    }
    for (int j = 0; j < kSums; ++j) {
      sum[j] += x[j];
    }
    for (int j = 0; j < kSums; ++j) {
      squares[j] += static_cast<double>(x[j]) * x[j];
    }
    for (int j = 0; j < kSums; ++j) {
      least[j] = low[j] < least[j] ? low[j] : least[j];
    }
    for (int j = 0; j < kSums; ++j) {
      most[j] = high[j] > most[j] ? high[j] : most[j];
    }
  }
  Stats total;
  for (int j = 0; j < kSums; ++j) {
    total.merge({0, sum[j], squares[j], least[j], most[j]});
  }
  total.count = count;
  if (total.sum != total.sum) {  // the comparisons above pass over NaN
    total.min = total.max = total.sum;
  }
  return total;
}

ALWA_CLONES int64_t
find_others(const int64_t* labels, int64_t n, int64_t background, int32_t* indices) {
  constexpr int64_t kStep = 32;  // labels looked at together: most of these are all background
  int64_t found = 0;
  for (int64_t begin = 0; begin < n; begin += kStep) {
    const int64_t end = std::min(n, begin + kStep);
    int64_t different = 0;
    for (int64_t i = begin; i < end; ++i) {
      different |= labels[i] ^ background;
    }
    for (int64_t i = begin; i < end && different != 0; ++i) {
      indices[found] = static_cast<int32_t>(i);
      found += labels[i] != background;
    }
  }
  return found;
}

template void sums_of_rows(const float*, int64_t, int64_t, float, float*);
template void sums_of_rows(const double*, int64_t, int64_t, double, double*);
template void fold_columns(const float*, int64_t, int64_t, float, float*, int64_t);
template void fold_columns(const double*, int64_t, int64_t, double, double*, int64_t);
template void add_to(float*, const float*, int64_t);
template void add_to(double*, const double*, int64_t);
template Stats stats_of_anchors(const float*, const int64_t*, int64_t);
template Stats stats_of_anchors(const double*, const int64_t*, int64_t);

}  // namespace alwa_d2
