#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../host_device.h"

// exp, log1p and atan on the ranges that the losses need, in float32 without calls or branches. The
// relative error is up to 4e-6 for exp (5e-7 for y < 10; on a GPU 6e-6 and 8e-7), and 2e-7 for
// log1p and atan. The polynomials are those with the smallest maximum of the relative error; exp is
// exact at 0.

namespace alwa_d2 {

template <typename To, typename From>
ALWA_HOST_DEVICE To bit_cast(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof(y));
  return y;
}

#if defined(__CUDA_ARCH__)
// What a GPU's special-function unit computes. By the PTX manual its relative error is 2^-22 for
// 2^x, 2^-23 for 1 / x, and results below the smallest normal number are 0. Where CUDA is emulated
// on a host, results are off by as much, up or down as the argument's last bit says.
constexpr float kExp2Error = 0x1p-22f, kReciprocalError = 0x1p-23f;

#if defined(ALWA_D2_EMULATED)
inline float off_by(float y, float error, float x) {
  const bool up = bit_cast<std::uint32_t>(x) & 1;
  y *= up ? 1 + error : 1 - error;
  return y < 0x1p-126f ? 0 : y;
}
inline float approximate_exp2(float x) { return off_by(std::exp2(x), kExp2Error, x); }
inline float approximate_reciprocal(float x) { return off_by(1 / x, kReciprocalError, x); }
#else
__device__ __forceinline__ float approximate_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float approximate_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif
#endif

// c + x (c' + x (c'' + ...)).
template <typename T>
ALWA_HOST_DEVICE T polynomial(T, T c) {
  return c;
}

template <typename T, typename... Rest>
ALWA_HOST_DEVICE T polynomial(T x, T c, Rest... rest) {
  return c + x * polynomial(x, rest...);
}

// exp(-y) for y >= 0. From about 87.7 on, where float32 has no normal number left, it is 0. `limit`
// is kExpLimit, given at run time: of a limit that it knows the compiler would make a special case.
constexpr float kExpLimit = 88;

ALWA_HOST_DEVICE float exp_minus(float y, float limit) {
#if defined(__CUDA_ARCH__)
  return approximate_exp2(y * -1.4426950408889634f);
#else
  y = y > limit ? limit : y;
  // Adding 1.5 * 2^23 leaves n, the nearest integer to -y / log 2, in the lowest bits.
  const float magic = 12582912;
  const float shifted = y * -1.4426950408889634f + magic;
  const float n = shifted - magic;
  const float r = -y - n * 0.6931471805599453f;  // in [-log(2) / 2, log(2) / 2]
  const float exp_r = polynomial(
      r, 1.0f, 0.9999997071856359f, 0.4999914952695828f, 0.1666763620632423f, 0.0418979296547391f,
      0.0082903139939202f);
  const auto exponent = (bit_cast<std::uint32_t>(shifted) << 23) + 0x3f800000u;
  return exp_r * bit_cast<float>(exponent);  // 2^n
#endif
}

ALWA_HOST_DEVICE double exp_minus(double y, double) { return std::exp(-y); }

// 1 / x for 1 <= x <= 2.
ALWA_HOST_DEVICE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  return approximate_reciprocal(x);
#else
  return 1 / x;
#endif
}

ALWA_HOST_DEVICE double reciprocal(double x) { return 1 / x; }

// log(1 + e) for 0 <= e <= 1. `rough` has a relative error of 9e-6, for what is rounded to 16 bits.
template <bool rough = false>
ALWA_HOST_DEVICE float log1p_unit(float e) {
  if constexpr (rough) {
    return e *
        polynomial(
               e, 0.9999915983271319f, -0.4993613673906542f, 0.3252066924893895f,
               -0.2100487118031005f, 0.1012223006445878f, -0.0238691553067532f);
  }
  return e *
      polynomial(
             e, 0.9999999698751063f, -0.4999949308388506f, 0.3331909562571518f,
             -0.2484297280103298f, 0.1910596991692375f, -0.1366316743317375f, 0.0782250281685677f,
             -0.0295046715965414f, 0.0052325527410515f);
}

template <bool = false>
ALWA_HOST_DEVICE double log1p_unit(double e) {
  return std::log1p(e);
}

// atan(t) for 0 <= t <= 1.
ALWA_HOST_DEVICE float atan_unit(float t) {
  return t *
      polynomial(
             t * t, 0.9999999009759081f, -0.3333199060364402f, 0.1996972159910416f,
             -0.1401946704622220f, 0.0991425305704119f, -0.0594858079433388f, 0.0242519763981397f,
             -0.0046931538427610f);
}

ALWA_HOST_DEVICE double atan_unit(double t) { return std::atan(t); }

}  // namespace alwa_d2
