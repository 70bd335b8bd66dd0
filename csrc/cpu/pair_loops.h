#pragma once

#include <cstdint>

#include "cpu/vectorize.h"
#include "losses/box.h"

namespace alwa_d2 {

// Losses and gradients of kLanes pairs of boxes, each of the five numbers in an array of its own.
template <typename T>
struct PairBlock {
  T value[kLanes];
  T grad[4][kLanes];

  PairLoss<T> pair(int64_t i) const {
    return {value[i], {grad[0][i], grad[1][i], grad[2][i], grad[3][i]}};
  }
};

// Fills `block` for n <= kLanes pairs, (n, 4) each. The compiler vectorises the loop over pairs.
template <typename T, typename scalar_t, typename Loss>
ALWA_CLONES void pair_block(
    const scalar_t* __restrict pred, const scalar_t* __restrict target, int64_t n, const Loss& loss,
    PairBlock<T>& __restrict block) {
  T p[4][kLanes] = {}, t[4][kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    for (int j = 0; j < 4; ++j) {
      p[j][i] = static_cast<T>(pred[4 * i + j]);
      t[j][i] = static_cast<T>(target[4 * i + j]);
    }
  }
  const Loss loss_of_pair = loss;
  for (int i = 0; i < kLanes; ++i) {
    const T one[4] = {p[0][i], p[1][i], p[2][i], p[3][i]};
    const T other[4] = {t[0][i], t[1][i], t[2][i], t[3][i]};
    const PairLoss<T> pair = loss_of_pair(one, other);
    block.value[i] = pair.value;
    block.grad[0][i] = pair.grad[0];
    block.grad[1][i] = pair.grad[1];
    block.grad[2][i] = pair.grad[2];
    block.grad[3][i] = pair.grad[3];
  }
}

}  // namespace alwa_d2
