#pragma once

#include "box.h"

namespace alwa_d2 {

// 1 - GIoU (arXiv 1902.09630, algorithm 1): 1 - I/U + (C - U)/C with the area C of the enclosing
// box. With q = (C - U)/C the last term's derivative is (dC - dU - q dC) / C.
template <typename T>
struct GIoU {
  static constexpr bool kOnBoxes = true;
  T eps;

  ALWA_HOST_DEVICE PairLoss<T> operator()(const T pred[4], const T target[4]) const {
    const Box<T> p(pred), t(target);
    const Overlap<T> o(p, t);
    const Enclosure<T> c(p, t);
    PairLoss<T> loss = one_minus_iou(o, eps);

    const T area = c.width * c.height;
    const T q = (area - o.union_) / (area + eps);
    loss.value += q;
    const T d_area[4] = {
        c.d_width[0] * c.height, c.d_height[0] * c.width, c.d_width[1] * c.height,
        c.d_height[1] * c.width};
    for (int i = 0; i < 4; ++i) {
      loss.grad[i] += (d_area[i] - o.d_union[i] - q * d_area[i]) / (area + eps);
    }
    return finish(loss, pred);
  }
};

}  // namespace alwa_d2
