#pragma once

#include "box.h"

namespace alwa_d2 {

// Adds the centre distance of DIoU (arXiv 1911.08287, equation 7) to a loss: q = rho^2 / c^2, rho
// between the centres, c the diagonal of the enclosing box. Its derivative is
// (d rho^2 - q d c^2) / c^2 with
//   d rho^2 / d x1 = d rho^2 / d x2 = x_p - x_t       (a centre moves half as far as a side)
//   d c^2 / d x    = 2 width d width / d x            and the same for y.
template <typename T>
ALWA_HOST_DEVICE void add_centre_distance(
    PairLoss<T>& loss, const Box<T>& p, const Box<T>& t, T eps) {
  const Enclosure<T> c(p, t);
  const T diagonal = c.width * c.width + c.height * c.height + eps;
  const T dx = (p.x1 + p.x2) / 2 - (t.x1 + t.x2) / 2;
  const T dy = (p.y1 + p.y2) / 2 - (t.y1 + t.y2) / 2;
  const T q = (dx * dx + dy * dy) / diagonal;
  loss.value += q;
  for (int i = 0; i < 2; ++i) {
    loss.grad[2 * i] += (dx - q * 2 * c.width * c.d_width[i]) / diagonal;
    loss.grad[2 * i + 1] += (dy - q * 2 * c.height * c.d_height[i]) / diagonal;
  }
}

template <typename T>
struct DIoU {
  static constexpr bool kOnBoxes = true;
  T eps;

  ALWA_HOST_DEVICE PairLoss<T> operator()(const T pred[4], const T target[4]) const {
    const Box<T> p(pred), t(target);
    PairLoss<T> loss = one_minus_iou(Overlap<T>(p, t), eps);
    add_centre_distance(loss, p, t, eps);
    return finish(loss, pred);
  }
};

}  // namespace alwa_d2
