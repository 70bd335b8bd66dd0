#pragma once

#include "diou.h"
#include "elementary.h"

namespace alwa_d2 {

// DIoU plus alpha v (arXiv 1911.08287, equations 8 to 11):
//   v = (4 / pi^2) (atan(w_t / h_t) - atan(w / h))^2,   alpha = v / (1 - IoU + v)
// alpha is a constant in the gradient, as in Detectron2. With atan2 v is defined for h = 0 too:
//   d atan2(w, h) / dw = h / (w^2 + h^2),   d atan2(w, h) / dh = -w / (w^2 + h^2),   0 at w = h =
//   0.

// atan2(w, h) for w, h >= 0.
template <typename T>
ALWA_HOST_DEVICE T angle(T w, T h) {
  const T larger = maximum(w, h), smaller = minimum(w, h);
  const T a = atan_unit(larger == 0 ? T(0) : smaller / larger);
  return w > h ? T(1.5707963267948966) - a : a;
}

template <typename T>
struct CIoU {
  static constexpr bool kOnBoxes = true;
  T eps;

  ALWA_HOST_DEVICE PairLoss<T> operator()(const T pred[4], const T target[4]) const {
    const Box<T> p(pred), t(target);
    PairLoss<T> loss = one_minus_iou(Overlap<T>(p, t), eps);
    // Rounding may lift the IoU of two equal boxes just above 1.
    const T one_minus_iou_ = maximum(loss.value, T(0));
    add_centre_distance(loss, p, t, eps);

    const T w = p.width(), h = p.height();
    const T four_over_pi_squared = T(0.40528473456935108577551785283891);
    const T delta = angle(t.width(), t.height()) - angle(w, h);
    const T v = four_over_pi_squared * delta * delta;
    const T alpha = v / (one_minus_iou_ + v + eps);
    loss.value += alpha * v;

    const T largest = maximum(w, h);
    if (largest > 0) {
      // Divided by the larger extent first: the squares of very small or very large ones would
      // leave the range of T. The slope itself passes it for extents near 0 and is cut there.
      const T a = w / largest, b = h / largest;
      const T factor = -2 * alpha * four_over_pi_squared * delta / (a * a + b * b);
      const T limit = std::numeric_limits<T>::max() / 4;
      const T d_w = minimum(maximum(factor * b / largest, -limit), limit);
      const T d_h = minimum(maximum(-factor * a / largest, -limit), limit);
      loss.grad[0] -= d_w;
      loss.grad[1] -= d_h;
      loss.grad[2] += d_w;
      loss.grad[3] += d_h;
    }
    return finish(loss, pred);
  }
};

}  // namespace alwa_d2
