#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cpu/focal_loops.h"
#include "cpu/sum_loops.h"
#include "levels.h"

namespace alwa_d2 {

// What a thread needs for a piece of anchors (pieces.h), kept from piece to piece.
template <typename T>
struct FocalScratch {
  // Logits computed at a time where they lie in rows. In float32 they, their losses and gradients
  // are 24 KB, which stay in a first-level cache until the rows are summed.
  static constexpr int64_t kBlock = 2048;

  struct Own {
    int64_t place, label;  // an anchor's row or position, and its class
  };

  std::vector<T> losses;        // of the piece's anchors
  std::vector<T> values;        // losses of single logits
  std::vector<T> x, dx;         // logits and gradients where they are not used in place
  std::vector<T> partial;       // see fold_columns
  std::vector<int32_t> others;  // places in the piece of the anchors that are not background
  std::vector<Own> own;

  FocalScratch(int64_t piece, int64_t k) : losses(piece), values(std::max({kBlock, k, piece})) {}
};

// The anchors of a piece that belong to one image and one level. Fills their scratch.losses with
// the sums over the classes that are not their own, and writes gradients as if no class were.
template <typename scalar_t, typename T>
struct FocalSegment {
  const Focal<T>& focal;
  T factor;               // of gradients
  const int64_t* labels;  // (N, R)
  int64_t k;
  const Level<const scalar_t>& in;
  const Level<scalar_t>* out;  // null without gradients
  int64_t piece, begin, end;   // anchors counted over all images: the piece's first, and the range
  int64_t image, r;            // of the first one
  FocalScratch<T>& scratch;

  void run() const {
    if (!in.in_rows(k) && in.in_planes() && (!out || out->in_planes())) {
      planes();
    } else {
      rows();
    }
  }

 private:
  // Anchor after anchor, kBlock logits at a time.
  void rows() const {
    const bool side_by_side = in.in_rows(k) && (!out || out->in_rows(k));
    const int64_t step = std::max<int64_t>(1, scratch.kBlock / k);
    for (int64_t i = begin; i < end; i += step) {
      const int64_t rows = std::min(step, end - i), first = r + (i - begin);
      if (side_by_side) {
        terms(
            in.values(image, first), out ? out->values(image, first) : nullptr, rows * k, rows * k,
            rows * k, scratch.values.data());
      } else {
        strided_terms(first, rows);
      }
      find_own(i, i + rows, i, 1, 0);
      for (const auto& own : scratch.own) {
        scratch.values[own.place * k + own.label] = 0;
      }
      sums_of_rows(
          scratch.values.data(), rows, k, focal.alpha_negative,
          scratch.losses.data() + (i - piece));
    }
  }

  // Channel after channel: the classes of the positions' first anchors, then of their second ones.
  void planes() const {
    const int64_t per_position = in.per_position, local = r - in.first;
    for (int64_t a = 0; a < per_position; ++a) {
      // The positions whose anchor a is in the range.
      const auto position_from = [&](int64_t anchor) {
        return (anchor - a + per_position - 1) / per_position;
      };
      const int64_t position = position_from(local),
                    n = position_from(local + end - begin) - position;
      find_own(begin, end, begin - local + position * per_position, per_position, a);
      scratch.partial.resize(kPartialSums * n);
      const auto channel = [&](const auto& level, int64_t c) {
        return level.data + image * level.stride_image + a * level.stride_anchor +
            c * level.stride_value + position;
      };
      for (int64_t c = 0; c < k; ++c) {
        // The first kPartialSums channels are the partial sums' first terms: written, not added.
        T* sums = scratch.partial.data() + c % kPartialSums * n;
        T* values = c < kPartialSums ? sums : scratch.values.data();
        terms(
            channel(in, c), out ? channel(*out, c) : nullptr, n, in.stride_value,
            out ? out->stride_value : 0, values);
        for (const auto& own : scratch.own) {
          if (own.label == c) {
            values[own.place] = 0;
          }
        }
        if (values != sums) {
          add_to(sums, values, n);
        }
      }
      T* losses = scratch.losses.data() + (begin - piece) - local + position * per_position + a;
      fold_columns(scratch.partial.data(), n, k, focal.alpha_negative, losses, per_position);
    }
  }

  // Lists the foreground among the anchors first .. last: of every per_position anchors from
  // `origin` on, the a-th.
  void find_own(
      int64_t first, int64_t last, int64_t origin, int64_t per_position, int64_t a) const {
    scratch.own.clear();
    auto other = std::lower_bound(scratch.others.begin(), scratch.others.end(), first - piece);
    for (; other != scratch.others.end() && piece + *other < last; ++other) {
      const int64_t label = labels[piece + *other], place = piece + *other - origin - a;
      if (0 <= label && label < k && place % per_position == 0) {
        scratch.own.push_back({place / per_position, label});
      }
    }
  }

  // Fills `values` with the losses of n logits that lie side by side, and writes their gradients to
  // dx. The logits that come next lie x_step further, their gradients dx_step.
  void terms(const scalar_t* x, scalar_t* dx, int64_t n, int64_t x_step, int64_t dx_step, T* values)
      const {
    if constexpr (std::is_same_v<scalar_t, T>) {
      focal_terms(
          focal, x, n, slope_factor(), values, dx, {x + x_step, dx ? dx + dx_step : nullptr});
    } else {
      scratch.x.assign(x, x + n);
      scratch_terms(values);
      if (dx) {
        std::copy_n(scratch.dx.data(), n, dx);
      }
    }
  }

  // The same of logits that lie in no order, to scratch.values.
  void strided_terms(int64_t first, int64_t rows) const {
    scratch.x.resize(rows * k);
    for (int64_t i = 0; i < rows * k; ++i) {
      scratch.x[i] = static_cast<T>(in.values(image, first + i / k)[i % k * in.stride_value]);
    }
    scratch_terms(scratch.values.data());
    for (int64_t i = 0; out && i < rows * k; ++i) {
      out->values(image, first + i / k)[i % k * out->stride_value] =
          static_cast<scalar_t>(scratch.dx[i]);
    }
  }

  // The same of scratch.x, with gradients in scratch.dx.
  void scratch_terms(T* values) const {
    scratch.dx.resize(scratch.x.size());
    focal_terms(
        focal, scratch.x.data(), static_cast<int64_t>(scratch.x.size()), slope_factor(), values,
        out ? scratch.dx.data() : nullptr, {scratch.x.data(), scratch.dx.data()});
  }

  T slope_factor() const { return focal.alpha_negative * factor; }
};

}  // namespace alwa_d2
