#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

struct cudaDeviceProp {
  int multiProcessorCount = 2;  // few, so that loops over the grid go round more than once
};

namespace at::cuda {

using c10::cuda::getCurrentCUDAStream;

inline cudaDeviceProp* getCurrentDeviceProperties() {
  static cudaDeviceProp properties;
  return &properties;
}

}  // namespace at::cuda
