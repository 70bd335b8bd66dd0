#pragma once

#include <cstdint>

#include "losses/focal.h"

namespace alwa_d2 {

// Where the logits and gradients lie that come next, as many again: brought near meanwhile.
template <typename T>
struct Ahead {
  const T* logits;
  T* gradients;
};

// Loss (without alpha) and gradient (times `factor`) of n logits that lie side by side, each taken
// as one of a class that is not its anchor's. gradients may be null. T: float, double.
template <typename T>
void focal_terms(
    const Focal<T>& focal, const T* logits, int64_t n, T factor, T* losses, T* gradients,
    const Ahead<T>& ahead);

}  // namespace alwa_d2
