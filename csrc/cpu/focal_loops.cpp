#include "cpu/focal_loops.h"

#include <algorithm>

#include "cpu/vectorize.h"

namespace alwa_d2 {
namespace {

template <bool gamma_is_two, bool with_gradient, typename T>
inline __attribute__((always_inline)) void terms(
    const Focal<T>& focal, const T* __restrict logits, int64_t n, T factor, T* __restrict losses,
    T* __restrict gradients, const Ahead<T>& ahead) {
  for (int64_t i = 0; i < n; i += kLanes) {
    // Where n is no multiple of kLanes, the last lanes overlap those before them: the rest needs no
    // code of its own.
    const int64_t first = std::min(i, n - kLanes);
    __builtin_prefetch(ahead.logits + i);
    if constexpr (with_gradient) {
      __builtin_prefetch(ahead.gradients + i, 1);
    }
    for (int64_t j = first; j < first + kLanes; ++j) {
      const auto term = focal.template term<gamma_is_two>(logits[j]);
      losses[j] = term.value;
      if constexpr (with_gradient) {
        gradients[j] = factor * term.slope;
      }
    }
  }
}

// n >= kLanes.
template <typename T>
ALWA_CLONES void run_terms(
    const Focal<T>& focal, const T* logits, int64_t n, T factor, T* losses, T* gradients,
    const Ahead<T>& ahead) {
  if (focal.gamma == 2) {
    if (gradients) {
      terms<true, true>(focal, logits, n, factor, losses, gradients, ahead);
    } else {
      terms<true, false>(focal, logits, n, factor, losses, gradients, ahead);
    }
  } else {
    if (gradients) {
      terms<false, true>(focal, logits, n, factor, losses, gradients, ahead);
    } else {
      terms<false, false>(focal, logits, n, factor, losses, gradients, ahead);
    }
  }
}

}  // namespace

template <typename T>
void focal_terms(
    const Focal<T>& focal, const T* logits, int64_t n, T factor, T* losses, T* gradients,
    const Ahead<T>& ahead) {
  if (n >= kLanes) {
    run_terms(focal, logits, n, factor, losses, gradients, ahead);
  } else {
    T x[kLanes] = {}, values[kLanes], slopes[kLanes];
    std::copy_n(logits, n, x);
    run_terms(focal, x, kLanes, factor, values, gradients ? slopes : nullptr, {x, slopes});
    std::copy_n(values, n, losses);
    if (gradients) {
      std::copy_n(slopes, n, gradients);
    }
  }
}

template void focal_terms(
    const Focal<float>&, const float*, int64_t, float, float*, float*, const Ahead<float>&);
template void focal_terms(
    const Focal<double>&, const double*, int64_t, double, double*, double*, const Ahead<double>&);

}  // namespace alwa_d2
