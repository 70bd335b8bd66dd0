#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "../host_device.h"

// What the IoU family of losses has in common. Boxes are XYXY. A box whose second corner lies
// before its first is taken as empty, at the first corner: negative extents count as 0.

namespace alwa_d2 {

// A loss of one pair, and its derivatives by the four numbers of the prediction.
template <typename T>
struct PairLoss {
  T value;
  T grad[4];
};

// Four numbers that lie `stride` apart, in the type to compute with.
template <typename T, typename Stored>
ALWA_HOST_DEVICE void load(const Stored* from, std::int64_t stride, T to[4]) {
  for (int i = 0; i < 4; ++i) {
    to[i] = static_cast<T>(from[i * stride]);
  }
}

// NaN in either argument gives NaN, as torch.max and torch.min have it.
template <typename T>
ALWA_HOST_DEVICE T maximum(T a, T b) {
  return (a > b || a != a) ? a : b;
}

template <typename T>
ALWA_HOST_DEVICE T minimum(T a, T b) {
  return (a < b || a != a) ? a : b;
}

// d max(a, b) / d a, which is also d min(b, a) / d b; a tie shares the derivative equally, as
// autograd does for torch.max.
template <typename T>
ALWA_HOST_DEVICE T share_of_larger(T a, T b) {
  return a > b ? T(1) : (a == b ? T(0.5) : T(0));
}

template <typename T>
struct Box {
  T x1, y1, x2, y2;

  explicit ALWA_HOST_DEVICE Box(const T v[4])
      : x1(v[0]), y1(v[1]), x2(v[2] < v[0] ? v[0] : v[2]), y2(v[3] < v[1] ? v[1] : v[3]) {}

  ALWA_HOST_DEVICE T width() const { return x2 - x1; }
  ALWA_HOST_DEVICE T height() const { return y2 - y1; }
};

// Intersection and union areas of a prediction p and a target t, and their derivatives by p.
template <typename T>
struct Overlap {
  T intersection, union_;
  T d_intersection[4], d_union[4];

  ALWA_HOST_DEVICE Overlap(const Box<T>& p, const Box<T>& t) {
    const T iw = minimum(p.x2, t.x2) - maximum(p.x1, t.x1);
    const T ih = minimum(p.y2, t.y2) - maximum(p.y1, t.y1);
    // NaN fails both comparisons of "apart" and so reaches the value.
    const bool apart = iw <= 0 || ih <= 0;
    const T w = apart ? T(0) : iw, h = apart ? T(0) : ih;
    intersection = w * h;
    d_intersection[0] = -h * share_of_larger(p.x1, t.x1);
    d_intersection[1] = -w * share_of_larger(p.y1, t.y1);
    d_intersection[2] = h * share_of_larger(t.x2, p.x2);
    d_intersection[3] = w * share_of_larger(t.y2, p.y2);

    union_ = p.width() * p.height() + t.width() * t.height() - intersection;
    d_union[0] = -p.height() - d_intersection[0];
    d_union[1] = -p.width() - d_intersection[1];
    d_union[2] = p.height() - d_intersection[2];
    d_union[3] = p.width() - d_intersection[3];
  }
};

// Extents of the smallest box around p and t, and their derivatives by p: d_width by x1 and x2,
// d_height by y1 and y2.
template <typename T>
struct Enclosure {
  T width, height;
  T d_width[2], d_height[2];

  ALWA_HOST_DEVICE Enclosure(const Box<T>& p, const Box<T>& t) {
    width = maximum(p.x2, t.x2) - minimum(p.x1, t.x1);
    height = maximum(p.y2, t.y2) - minimum(p.y1, t.y1);
    d_width[0] = -share_of_larger(t.x1, p.x1);
    d_width[1] = share_of_larger(p.x2, t.x2);
    d_height[0] = -share_of_larger(t.y1, p.y1);
    d_height[1] = share_of_larger(p.y2, t.y2);
  }
};

// 1 - IoU with eps added to the union: the first term of every loss of the family.
// d(I / U) is written (dI - I/U dU) / U, so that no square of an area is formed.
template <typename T>
ALWA_HOST_DEVICE PairLoss<T> one_minus_iou(const Overlap<T>& o, T eps) {
  const T denominator = o.union_ + eps;
  const T iou = o.intersection / denominator;
  PairLoss<T> loss{1 - iou, {}};
  for (int i = 0; i < 4; ++i) {
    loss.grad[i] = (iou * o.d_union[i] - o.d_intersection[i]) / denominator;
  }
  return loss;
}

// The last step of a loss. An empty box's first corner stands for both, and gets the derivatives by
// the second one too. Where the value is NaN so are all derivatives.
template <typename T>
ALWA_HOST_DEVICE PairLoss<T> finish(PairLoss<T> loss, const T pred[4]) {
  for (int i = 0; i < 2; ++i) {
    if (pred[i + 2] < pred[i]) {
      loss.grad[i] += loss.grad[i + 2];
      loss.grad[i + 2] = 0;
    }
  }
  if (loss.value != loss.value) {
    for (int i = 0; i < 4; ++i) {
      loss.grad[i] = loss.value;
    }
  }
  return loss;
}

// Moves a finite number outside the range of Stored to the nearest number within it: in fp16 the
// loss of two far boxes, or the slope at an empty one, passes 65504, while fp32 still holds it. A
// slope that was multiplied with more than 1 may pass the range by that factor: so GradScaler finds
// that its factor is too large.
template <typename Stored, typename T>
ALWA_HOST_DEVICE T within_range_of(T x, T factor = 1) {
  const T larger = maximum(T(1), factor < 0 ? -factor : factor);
  const T limit = larger * static_cast<T>(std::numeric_limits<Stored>::max());
  const bool infinite = x - x != 0;  // and NaN
  return infinite ? x : minimum(maximum(x, -limit), limit);
}

}  // namespace alwa_d2
