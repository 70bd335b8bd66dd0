#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <tuple>
#include <vector>

#include "checks.h"
#include "stats.h"

namespace alwa_d2 {

// Sums are made of partial sums over pieces of this many losses or more, combined in order. Pieces
// do not depend on the number of threads, and so the bits of the sum do not either. 1024 losses
// keep a core busy for microseconds, much longer than a piece costs by itself.
constexpr int64_t kPiece = 1024;

// The statistics of n losses: those of pieces of `size`, merged in order. f(begin, end) gives the
// statistics of a piece; make() gives such an f to each of PyTorch's threads, none of which takes
// fewer than `grain` pieces.
template <typename Make>
Stats sum_over_pieces(int64_t n, int64_t size, int64_t grain, const Make& make) {
  std::vector<Stats> parts((n + size - 1) / size);
  at::parallel_for(0, static_cast<int64_t>(parts.size()), grain, [&](int64_t first, int64_t last) {
    auto f = make();
    for (int64_t i = first; i < last; ++i) {
      parts[i] = f(i * size, std::min(n, (i + 1) * size));
    }
  });
  Stats total;
  for (const Stats& part : parts) {
    total.merge(part);
  }
  return total;
}

// Pieces of the dense losses are multiples of kPiece. Their loops like them long: with pieces of
// 1024 contiguous outputs take 15 % more time. The longest one's list of foreground is 32 KB.
constexpr int64_t kLongestPiece = 8 * kPiece;

// For n anchors: 32 pieces at least, where kPiece allows, so that all threads get an equal share.
inline int64_t piece_size(int64_t n) {
  return std::clamp<int64_t>(n / 32 / kPiece * kPiece, kPiece, kLongestPiece);
}

template <typename F>
Stats sum_over_pieces(int64_t n, const F& f) {
  return sum_over_pieces(n, kPiece, 1, [&] { return std::cref(f); });
}

inline double scale_value(const std::optional<at::Tensor>& scale, double factor) {
  return scale.has_value() ? scale->item<double>() * factor : factor;
}

// A loss reduced over what x holds.
inline at::Tensor reduced_loss(double value, const at::Tensor& x) {
  at::Tensor loss = at::empty({}, x.options().dtype(reduced_dtype(x)));
  if (loss.scalar_type() == at::kDouble) {
    *loss.data_ptr<double>() = value;
  } else {
    *loss.data_ptr<float>() = static_cast<float>(value);
  }
  return loss;
}

// What the dense ops return: the sum times `scale`, and the unscaled statistics.
inline std::tuple<at::Tensor, at::Tensor> scaled_sum(
    const Stats& stats, const at::Tensor& predictions, double scale) {
  at::Tensor values = at::empty({Stats::kSize}, predictions.options().dtype(at::kDouble));
  stats.store(values.data_ptr<double>());
  return {reduced_loss(stats.sum * scale, predictions), values};
}

}  // namespace alwa_d2
