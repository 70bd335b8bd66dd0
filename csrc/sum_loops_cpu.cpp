#include "sum_loops_cpu.h"

#include <algorithm>
#include <cstring>

#include "vectorize_cpu.h"

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

// For a number of classes that is known when compiling, at most kPartialSums.
template <int k, typename T>
inline __attribute__((always_inline)) void sums_of_short_rows(
    const T* __restrict x, int64_t rows, T factor, T* __restrict sums) {
  for (int64_t row = 0; row < rows; ++row) {
    sums[row] = factor * fold<k>([&](int j) { return x[row * k + j]; });
  }
}

ALWA_CLONES bool all_equal(const int64_t* x, int64_t n, int64_t value) {
  int64_t different = 0;
  for (int64_t i = 0; i < n; ++i) {
    different |= x[i] ^ value;
  }
  return different == 0;
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
ALWA_CLONES void add_to(T* __restrict sums, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    sums[i] += x[i];
  }
}

template <typename T>
ALWA_CLONES Stats
stats_of_anchors(const T* __restrict losses, const int64_t* __restrict labels, int64_t n) {
  constexpr int kSums = 8;  // side by side
  const Stats none;
  double count[kSums] = {}, sum[kSums] = {}, squares[kSums] = {}, least[kSums], most[kSums];
  std::fill_n(least, kSums, none.min);
  std::fill_n(most, kSums, none.max);
  const auto add = [&](int64_t i, int j) __attribute__((always_inline)) {
    const bool valid = labels[i] >= 0;
    const double x = valid ? static_cast<double>(losses[i]) : 0;
    const double low = valid ? x : none.min, high = valid ? x : none.max;
    count[j] += valid ? 1 : 0;
    sum[j] += x;
    squares[j] += x * x;
    least[j] = low < least[j] ? low : least[j];
    most[j] = high > most[j] ? high : most[j];
  };
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums) {
    for (int j = 0; j < kSums; ++j) {
      add(i + j, j);
    }
  }
  for (int j = 0; i + j < n; ++j) {
    add(i + j, j);
  }
  Stats total;
  for (int j = 0; j < kSums; ++j) {
    total.merge({count[j], sum[j], squares[j], least[j], most[j]});
  }
  if (total.sum != total.sum) {  // the comparisons above pass over NaN
    total.min = total.max = total.sum;
  }
  return total;
}

int64_t find_others(const int64_t* labels, int64_t n, int64_t background, int32_t* indices) {
  constexpr int64_t kStep = 64;
  int64_t found = 0;
  for (int64_t begin = 0; begin < n; begin += kStep) {
    const int64_t end = std::min(n, begin + kStep);
    if (!all_equal(labels + begin, end - begin, background)) {
      for (int64_t i = begin; i < end; ++i) {
        if (labels[i] != background) {
          indices[found++] = static_cast<int32_t>(i);
        }
      }
    }
  }
  return found;
}

template void sums_of_rows(const float*, int64_t, int64_t, float, float*);
template void sums_of_rows(const double*, int64_t, int64_t, double, double*);
template void add_to(float*, const float*, int64_t);
template void add_to(double*, const double*, int64_t);
template Stats stats_of_anchors(const float*, const int64_t*, int64_t);
template Stats stats_of_anchors(const double*, const int64_t*, int64_t);

}  // namespace alwa_d2
