#pragma once

#include <cstdint>

#include "losses/focal.h"

namespace alwa_d2 {

// Where the next n logits and gradients lie: the loop brings them near while it computes.
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
