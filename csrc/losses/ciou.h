#pragma once

#include "diou.h"
#include "elementary.h"

namespace alwa_d2 {

// DIoU plus alpha v (arXiv 1911.08287, equations 8 to 11):
//   v = (4 / pi^2) (atan(w_t / h_t) - atan(w / h))^2,   alpha = v / (1 - IoU + v)
// alpha is a constant in the gradient, as in Detectron2. With atan2 v is defined for h = 0 too:
//   d atan2(w, h) / dw = h / (w^2 + h^2),   d atan2(w, h) / dh = -w / (w^2 + h^2)
// and both are 0 at w = h = 0.

// Two extents >= 0, described by their ratio, which is 0 where both are 0.
template <typename T>
struct Shape {
  T larger, ratio;  // the smaller extent over the larger one
  bool wide;        // width > height

  ALWA_HOST_DEVICE Shape(T w, T h) : larger(maximum(w, h)), wide(w > h) {
    ratio = larger == 0 ? T(0) : minimum(w, h) / larger;
  }

  // atan2(width, height)
  ALWA_HOST_DEVICE T angle() const {
    const T a = atan_unit(ratio);
    return wide ? T(1.5707963267948966) - a : a;
  }
};

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

    const Shape<T> shape(p.width(), p.height());
    const T four_over_pi_squared = T(0.40528473456935108577551785283891);
    const T delta = Shape<T>(t.width(), t.height()).angle() - shape.angle();
    const T v = four_over_pi_squared * delta * delta;
    const T alpha = v / (one_minus_iou_ + v + eps);
    loss.value += alpha * v;

    // Extents are divided by the larger one, since squares of very small or very large ones would
    // leave the range of T. The slope itself leaves it for extents near 0: it is cut at a quarter
    // of the range, which leaves room for the sums below. At 0 it is 0.
    const bool empty = !(shape.larger > 0);
    const T w = empty ? T(0) : (shape.wide ? T(1) : shape.ratio);
    const T h = empty ? T(0) : (shape.wide ? shape.ratio : T(1));
    const T squares = (1 + shape.ratio * shape.ratio) * (empty ? T(1) : shape.larger);
    const T slope = 2 * alpha * four_over_pi_squared * delta / squares;
    const T limit = std::numeric_limits<T>::max() / 4;
    const T factor = minimum(maximum(slope, -limit), limit);
    loss.grad[0] += factor * h;
    loss.grad[1] -= factor * w;
    loss.grad[2] -= factor * h;
    loss.grad[3] += factor * w;
    return finish(loss, pred);
  }
};

}  // namespace alwa_d2
