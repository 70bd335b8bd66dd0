#pragma once

// CUDA's functions of a thread, a warp and a block, as far as the project's kernels use them.

// --- Barriers and votes
// ---------------------------------------------------------------------------

#define CUDA_ON_HOST_HERE ::cuda_on_host::Place at = ::cuda_on_host::Place::current()

inline void __syncthreads(CUDA_ON_HOST_HERE) { cuda_on_host::barrier("__syncthreads", 0, at); }

inline int __syncthreads_count(int value, CUDA_ON_HOST_HERE) {
  return cuda_on_host::barrier("__syncthreads_count", value != 0, at);
}

inline int __syncthreads_or(int value, CUDA_ON_HOST_HERE) {
  return cuda_on_host::barrier("__syncthreads_or", value != 0, at) > 0;
}

inline int __syncthreads_and(int value, CUDA_ON_HOST_HERE) {
  return cuda_on_host::barrier("__syncthreads_and", value == 0, at) == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffff, CUDA_ON_HOST_HERE) {
  cuda_on_host::exchange("__syncwarp", mask, 0, at);
}

inline unsigned __ballot_sync(unsigned mask, int value, CUDA_ON_HOST_HERE) {
  const auto lanes = cuda_on_host::exchange("__ballot_sync", mask, value != 0, at);
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i) {
    result |= (lanes.present >> i & 1 && lanes.values[i]) ? 1u << i : 0u;
  }
  return result;
}

inline int __any_sync(unsigned mask, int value, CUDA_ON_HOST_HERE) {
  return __ballot_sync(mask, value, at) != 0;
}

inline int __all_sync(unsigned mask, int value, CUDA_ON_HOST_HERE) {
  return __ballot_sync(mask, !value, at) == 0;
}

// --- Shuffles
// -------------------------------------------------------------------------------------

namespace cuda_on_host {

// The value of the lane that from(lane within its segment) names; the lane's own where that lies
// outside the segment.
template <typename T, typename From>
T shuffle(const char* name, unsigned mask, T value, int width, const From& from, Place at) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
    trap("shuffle: a width that is no power of 2 up to 32", at.file_name(), at.line());
  }
  uint64_t mine = 0;
  std::memcpy(&mine, &value, sizeof(T));
  const Lanes lanes = exchange(name, mask, mine, at);
  const int within = lanes.self % width, first = lanes.self - within;
  const int source = from(within);
  const int lane = source >= 0 && source < width ? first + source : lanes.self;
  if (!(lanes.present >> lane & 1)) {
    trap("shuffle: from a lane that takes no part", at.file_name(), at.line());
  }
  std::memcpy(&value, &lanes.values[lane], sizeof(T));
  return value;
}

}  // namespace cuda_on_host

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, CUDA_ON_HOST_HERE) {
  const auto from = [=](int) { return lane & (width - 1); };
  return cuda_on_host::shuffle("__shfl_sync", mask, value, width, from, at);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_HOST_HERE) {
  const auto from = [=](int lane) { return lane - static_cast<int>(delta); };
  return cuda_on_host::shuffle("__shfl_up_sync", mask, value, width, from, at);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_HOST_HERE) {
  const auto from = [=](int lane) { return lane + static_cast<int>(delta); };
  return cuda_on_host::shuffle("__shfl_down_sync", mask, value, width, from, at);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_ON_HOST_HERE) {
  const auto from = [=](int lane) { return lane ^ lanes; };
  return cuda_on_host::shuffle("__shfl_xor_sync", mask, value, width, from, at);
}

// --- Atomics
// --------------------------------------------------------------------------------------

namespace cuda_on_host {

// Told to the detector of races (races.cpp); nothing elsewhere.
void touch_atomically(void* address, size_t bytes);

// Not instrumented: its accesses are the atomic one.
template <typename T, typename F>
__attribute__((noinline, no_sanitize("thread"))) T atomically(T* address, const F& f) {
  touch_atomically(address, sizeof(T));
  const T old = *address;
  *address = f(old);
  return old;
}

}  // namespace cuda_on_host

// The types that CUDA has them for.
#define CUDA_ON_HOST_ATOMIC(name, T, result)                                      \
  inline T name(T* address, T value) {                                            \
    return cuda_on_host::atomically(address, [=](T old) -> T { return result; }); \
  }
CUDA_ON_HOST_ATOMIC(atomicAdd, int, old + value)
CUDA_ON_HOST_ATOMIC(atomicAdd, unsigned, old + value)
CUDA_ON_HOST_ATOMIC(atomicAdd, unsigned long long, old + value)
CUDA_ON_HOST_ATOMIC(atomicAdd, float, old + value)
CUDA_ON_HOST_ATOMIC(atomicAdd, double, old + value)
CUDA_ON_HOST_ATOMIC(atomicMax, int, std::max(old, value))
CUDA_ON_HOST_ATOMIC(atomicMax, unsigned, std::max(old, value))
CUDA_ON_HOST_ATOMIC(atomicMax, long long, std::max(old, value))
CUDA_ON_HOST_ATOMIC(atomicMax, unsigned long long, std::max(old, value))
CUDA_ON_HOST_ATOMIC(atomicMin, int, std::min(old, value))
CUDA_ON_HOST_ATOMIC(atomicMin, long long, std::min(old, value))
CUDA_ON_HOST_ATOMIC(atomicOr, int, old | value)
CUDA_ON_HOST_ATOMIC(atomicOr, unsigned, old | value)

// --- Numbers
// --------------------------------------------------------------------------------------

// Files are compiled without contraction where this matters (build.py), and so is CUDA's by name.
namespace cuda_on_host {
float product(float a, float b);
double product(double a, double b);
}  // namespace cuda_on_host

inline float __fmul_rn(float a, float b) { return cuda_on_host::product(a, b); }
inline double __dmul_rn(double a, double b) { return cuda_on_host::product(a, b); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline unsigned __float_as_uint(float x) { return c10::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return c10::bit_cast<float>(x); }
inline int __float_as_int(float x) { return c10::bit_cast<int>(x); }
inline float __int_as_float(int x) { return c10::bit_cast<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }

// --- Vectors, and loads and stores with a hint for the cache
// --------------------------------------

#define CUDA_ON_HOST_VECTORS(T, name, align2, align4)        \
  struct alignas(align2) name##2 { T x, y; };                \
  struct alignas(align4) name##4 { T x, y, z, w; };          \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_ON_HOST_VECTORS(int8_t, char, 2, 4)
CUDA_ON_HOST_VECTORS(uint8_t, uchar, 2, 4)
CUDA_ON_HOST_VECTORS(int16_t, short, 4, 8)
CUDA_ON_HOST_VECTORS(uint16_t, ushort, 4, 8)
CUDA_ON_HOST_VECTORS(int, int, 8, 16)
CUDA_ON_HOST_VECTORS(unsigned, uint, 8, 16)
CUDA_ON_HOST_VECTORS(float, float, 8, 16)
CUDA_ON_HOST_VECTORS(double, double, 16, 16)
CUDA_ON_HOST_VECTORS(long long, longlong, 16, 16)
CUDA_ON_HOST_VECTORS(unsigned long long, ulonglong, 16, 16)

#define CUDA_ON_HOST_LOAD(name) \
  template <typename T>         \
  T name(const T* from) {       \
    return *from;               \
  }
#define CUDA_ON_HOST_STORE(name) \
  template <typename T>          \
  void name(T* to, T value) {    \
    *to = value;                 \
  }
CUDA_ON_HOST_LOAD(__ldg)
CUDA_ON_HOST_LOAD(__ldca)
CUDA_ON_HOST_LOAD(__ldcg)
CUDA_ON_HOST_LOAD(__ldcs)
CUDA_ON_HOST_LOAD(__ldlu)
CUDA_ON_HOST_STORE(__stcg)
CUDA_ON_HOST_STORE(__stcs)
CUDA_ON_HOST_STORE(__stwt)
