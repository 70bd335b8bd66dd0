#pragma once

#include <cstdint>

#include "losses/focal.h"

namespace alwa_d2 {

// Loss (without alpha) and gradient (times `factor`) of n logits that lie side by side, each taken
// as one of a class that is not its anchor's. gradients may be null. T: float, double.
template <typename T>
void focal_terms(
    const Focal<T>& focal, const T* logits, int64_t n, T factor, T* losses, T* gradients);

}  // namespace alwa_d2
