#pragma once

#include "box.h"

namespace alwa_d2 {

// 1 - IoU (UnitBox, arXiv 1608.01471, in its linear form).
template <typename T>
struct IoU {
  static constexpr bool kOnBoxes = true;
  T eps;

  ALWA_HOST_DEVICE PairLoss<T> operator()(const T pred[4], const T target[4]) const {
    const Box<T> p(pred), t(target);
    return finish(one_minus_iou(Overlap<T>(p, t), eps), pred);
  }
};

}  // namespace alwa_d2
