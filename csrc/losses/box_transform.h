#pragma once

#include "box.h"

namespace alwa_d2 {

// Detectron2's Box2BoxTransform (R-CNN, arXiv 1311.2524, appendix C) for one anchor: deltas
// (dx, dy, dw, dh), weighted, move the anchor's centre by parts of its extents and scale these by
// exp(dw), exp(dh). dw and dh are clamped from above to log(1000 / 16).
template <typename T>
struct BoxTransform {
  T weights[4];

  static constexpr double kScaleClamp = 4.1351665567423557;  // log(1000 / 16)

  // Deltas -> XYXY.
  ALWA_HOST_DEVICE void decode(const T anchor[4], const T delta[4], T box[4]) const {
    for (int i = 0; i < 2; ++i) {
      const T extent = anchor[i + 2] - anchor[i];
      const T centre = delta[i] / weights[i] * extent + (anchor[i] + T(0.5) * extent);
      const T half = T(0.5) * scale(delta, i) * extent;
      box[i] = centre - half;
      box[i + 2] = centre + half;
    }
  }

  // Derivatives by a decoded box -> derivatives by the deltas. With extent e and s = exp(dw / ww):
  //   d x1, x2 / d dx = e / wx,   d x1 / d dw = -0.5 s e / ww,   d x2 / d dw = +0.5 s e / ww,
  // and 0 by dw beyond the clamp.
  ALWA_HOST_DEVICE void decode_backward(
      const T anchor[4], const T delta[4], const T d_box[4], T d_delta[4]) const {
    for (int i = 0; i < 2; ++i) {
      const T extent = anchor[i + 2] - anchor[i];
      d_delta[i] = (d_box[i] + d_box[i + 2]) * extent / weights[i];
      const bool clamped = delta[i + 2] / weights[i + 2] > T(kScaleClamp);
      d_delta[i + 2] = clamped
          ? T(0)
          : T(0.5) * (d_box[i + 2] - d_box[i]) * scale(delta, i) * extent / weights[i + 2];
    }
  }

  // XYXY -> deltas. A target of zero extent would have no finite logarithm: its ratio counts as the
  // smallest normal number.
  ALWA_HOST_DEVICE void encode(const T anchor[4], const T box[4], T delta[4]) const {
    for (int i = 0; i < 2; ++i) {
      const T extent = anchor[i + 2] - anchor[i];
      const T target = box[i + 2] - box[i];
      const T shift = (box[i] + T(0.5) * target) - (anchor[i] + T(0.5) * extent);
      delta[i] = weights[i] * shift / extent;
      const T ratio = maximum(target / extent, std::numeric_limits<T>::min());
      delta[i + 2] = weights[i + 2] * std::log(ratio);
    }
  }

 private:
  ALWA_HOST_DEVICE T scale(const T delta[4], int i) const {
    return std::exp(minimum(delta[i + 2] / weights[i + 2], T(kScaleClamp)));
  }
};

// The loss of one foreground anchor and its derivatives by the deltas. Losses of boxes get the
// decoded prediction, losses of codes the encoded target, as in Detectron2.
template <typename T, typename Loss>
ALWA_HOST_DEVICE PairLoss<T> anchor_loss(
    const Loss& loss, const BoxTransform<T>& transform, const T anchor[4], const T delta[4],
    const T gt_box[4]) {
  T pair[4];
  if constexpr (Loss::kOnBoxes) {
    transform.decode(anchor, delta, pair);
    const PairLoss<T> on_box = loss(pair, gt_box);
    PairLoss<T> result{on_box.value, {}};
    transform.decode_backward(anchor, delta, on_box.grad, result.grad);
    return result;
  } else {
    transform.encode(anchor, gt_box, pair);
    return loss(delta, pair);
  }
}

}  // namespace alwa_d2
