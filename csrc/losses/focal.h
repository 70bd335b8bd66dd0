#pragma once

#include <cmath>

#include "../host_device.h"

namespace alwa_d2 {

// Sigmoid focal loss (arXiv 1708.02002, equation 5) of one logit x. With z = -x for the anchor's
// class and z = x for every other, q = sigmoid(z) = 1 - p_t:
//   value       a q^gamma log(1 + e^z)
//   d value/dz  a q^gamma (q + gamma (1 - q) log(1 + e^z))       since dq/dz = q (1 - q)
// a = alpha for the anchor's class, 1 - alpha for the others; 1 for both if alpha < 0.
// e^-|z| never overflows, and log1p keeps what 1 + e^z would round away.
template <typename T>
struct Focal {
  T alpha_positive, alpha_negative, gamma;

  ALWA_HOST_DEVICE Focal(double alpha, double gamma_)
      : alpha_positive(alpha < 0 ? 1 : alpha),
        alpha_negative(alpha < 0 ? 1 : 1 - alpha),
        gamma(gamma_) {}

  ALWA_HOST_DEVICE T value(T x, bool positive) const {
    const Parts parts(positive ? -x : x);
    return weight(positive) * modulation(parts.q) * parts.cross_entropy;
  }

  ALWA_HOST_DEVICE T derivative(T x, bool positive) const {
    const Parts parts(positive ? -x : x);
    const T d_z = weight(positive) * modulation(parts.q) *
        (parts.q + gamma * parts.one_minus_q * parts.cross_entropy);
    return positive ? -d_z : d_z;
  }

 private:
  struct Parts {
    T q, one_minus_q, cross_entropy;

    explicit ALWA_HOST_DEVICE Parts(T z) {
      const T e = std::exp(z > 0 ? -z : z);
      const T larger = 1 / (1 + e), smaller = e / (1 + e);
      q = z > 0 ? larger : smaller;
      one_minus_q = z > 0 ? smaller : larger;
      cross_entropy = (z > 0 ? z : T(0)) + std::log1p(e);
    }
  };

  ALWA_HOST_DEVICE T weight(bool positive) const {
    return positive ? alpha_positive : alpha_negative;
  }

  ALWA_HOST_DEVICE T modulation(T q) const { return gamma == 2 ? q * q : std::pow(q, gamma); }
};

}  // namespace alwa_d2
