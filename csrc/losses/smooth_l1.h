#pragma once

#include "box.h"

namespace alwa_d2 {

// Smooth L1 of Fast R-CNN (arXiv 1504.08083, equation 3) with the point of change at beta, summed
// over the four codes. With d = pred - target and n = |d|:
//   value 0.5 d^2 / beta, derivative d / beta     for n < beta
//   value n - 0.5 beta,   derivative sign(d)      otherwise
// Below 1e-5 beta counts as 0, which is L1 (fvcore's limit).
template <typename T>
struct SmoothL1 {
  static constexpr bool kOnBoxes = false;
  T beta;

  ALWA_HOST_DEVICE SmoothL1(double beta_) : beta(beta_ < 1e-5 ? T(0) : T(beta_)) {}

  ALWA_HOST_DEVICE PairLoss<T> operator()(const T pred[4], const T target[4]) const {
    PairLoss<T> loss{0, {}};
    for (int i = 0; i < 4; ++i) {
      const T d = pred[i] - target[i];
      const T n = d < 0 ? -d : d;
      if (n < beta) {
        loss.value += T(0.5) * n * n / beta;
        loss.grad[i] = d / beta;
      } else {
        loss.value += n - T(0.5) * beta;
        loss.grad[i] = d > 0 ? T(1) : (d < 0 ? T(-1) : d);  // 0 at 0, NaN at NaN
      }
    }
    return loss;
  }
};

}  // namespace alwa_d2
