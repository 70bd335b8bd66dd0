#pragma once

// Marks a function for the host and, in CUDA files, for the device too: the formulas in losses/
// are compiled from the same text for both.
#if defined(__CUDACC__)
#define ALWA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ALWA_HOST_DEVICE inline
#endif
