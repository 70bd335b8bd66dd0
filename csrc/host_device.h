#pragma once

// Marks a function for the host and, in CUDA files, for the device too: the formulas in losses/
// are compiled from the same text for both. On the host they are inlined into loops: otherwise the
// compiler would not vectorise these.
#if defined(__CUDACC__)
#define ALWA_HOST_DEVICE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define ALWA_HOST_DEVICE inline __attribute__((always_inline))
#else
#define ALWA_HOST_DEVICE inline
#endif
