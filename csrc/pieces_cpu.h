#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "checks.h"
#include "stats.h"

namespace alwa_d2 {

// Runs f(begin, end) on PyTorch's threads over the pieces of [0, n).
template <typename F>
void for_each_piece(int64_t n, const F& f) {
  at::parallel_for(0, number_of_pieces(n), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      f(i * kPiece, std::min(n, (i + 1) * kPiece));
    }
  });
}

// Sum of the pieces' statistics, in their order.
inline Stats merged(const std::vector<Stats>& parts) {
  Stats total;
  for (const Stats& part : parts) {
    total.merge(part);
  }
  return total;
}

// As above for f that gives the statistics of its piece; their sum, in the pieces' order.
template <typename F>
Stats sum_over_pieces(int64_t n, const F& f) {
  std::vector<Stats> parts(number_of_pieces(n));
  for_each_piece(n, [&](int64_t begin, int64_t end) { parts[begin / kPiece] = f(begin, end); });
  return merged(parts);
}

// A tensor without values for each level's gradient.
inline std::vector<at::Tensor> empty_like(at::TensorList levels) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& level : levels) {
    result.push_back(at::empty_like(level));
  }
  return result;
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

// What the dense ops return: the sum times scale and factor, and the unscaled statistics.
inline std::tuple<at::Tensor, at::Tensor> scaled_sum(
    const Stats& stats, const at::Tensor& predictions, const std::optional<at::Tensor>& scale,
    double factor) {
  const at::Tensor loss = reduced_loss(stats.sum * scale_value(scale, factor), predictions);
  at::Tensor values = at::empty({Stats::kSize}, predictions.options().dtype(at::kDouble));
  stats.store(values.data_ptr<double>());
  return {loss, values};
}

}  // namespace alwa_d2
