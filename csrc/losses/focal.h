#pragma once

#include <limits>

#include "elementary.h"

namespace alwa_d2 {

// Sigmoid focal loss (arXiv 1708.02002, equation 5) of one logit x. With z = -x for the anchor's
// class and z = x for every other, q = sigmoid(z) = 1 - p_t and L = log(1 + e^z) = -log(1 - q):
//   value       a q^gamma L
//   d value/dz  a q^gamma (q + gamma (1 - q) L)       since dq/dz = q (1 - q)
// a = alpha for the anchor's class, 1 - alpha for the others; 1 for both if alpha is -1.
// With e = e^-|z|, which never overflows, and l = log(1 + e):
//   q = 1 / (1 + e),  1 - q = e / (1 + e),  L = z + l,  -log q = l       for z > 0
//   q = e / (1 + e),  1 - q = 1 / (1 + e),  L = l,      -log q = l - z   otherwise
// so that q^gamma = e^(-gamma (-log q)) is an exponential of the same kind.
template <typename T>
struct Focal {
  T alpha_positive, alpha_negative, gamma;
  T exp_limit = kExpLimit;

  ALWA_HOST_DEVICE Focal(double alpha, double gamma_)
      : alpha_positive(alpha < 0 ? 1 : alpha),
        alpha_negative(alpha < 0 ? 1 : 1 - alpha),
        gamma(gamma_) {}

  struct Term {
    T value, slope;
  };

  // Value and derivative by z, without a; `rough` takes the shorter polynomial for the logarithm.
  template <bool gamma_is_two, bool rough = false>
  ALWA_HOST_DEVICE Term term(T z) const {
    const T distance = std::abs(z);
    const T e = exp_minus(distance, exp_limit);
    const T inverse = reciprocal(1 + e), rest = e * inverse;
    const bool above = z > 0;
    const T q = above ? inverse : rest, one_minus_q = above ? rest : inverse;
    const T l = log1p_unit<rough>(e);
    const T cross_entropy = (above ? z : T(0)) + l;
    if constexpr (gamma_is_two) {
      const T q_squared = q * q;
      return {
          q_squared * cross_entropy, q_squared * (q + (one_minus_q + one_minus_q) * cross_entropy)};
    } else {
      const T largest = std::numeric_limits<T>::max();  // not infinity, for gamma = 0
      const T minus_log_q = (above ? T(0) : (distance > largest ? largest : distance)) + l;
      const T q_to_gamma = exp_minus(gamma * minus_log_q, exp_limit);
      return {q_to_gamma * cross_entropy, q_to_gamma * (q + gamma * one_minus_q * cross_entropy)};
    }
  }

  // Value and derivative by x, with a.
  ALWA_HOST_DEVICE Term operator()(T x, bool positive) const {
    const T z = positive ? -x : x;
    const Term t = gamma == 2 ? term<true>(z) : term<false>(z);
    const T a = positive ? alpha_positive : alpha_negative;
    return {a * t.value, positive ? -a * t.slope : a * t.slope};
  }
};

}  // namespace alwa_d2
