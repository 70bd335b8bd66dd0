#pragma once

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <map>
#include <string>

// What the files of probes share.

namespace probe {

template <typename F>
__global__ void __launch_bounds__(1024) run_kernel(const __grid_constant__ F f) {
  f();
}

template <typename F>
void launch(dim3 grid, dim3 block, const F& f) {
  run_kernel<<<grid, block, 0, c10::cuda::getCurrentCUDAStream()>>>(f);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// Numbers that a kernel works on; memory of the host, as every tensor's here.
alignas(16) inline int numbers[4096];

using Probes = std::map<std::string, void (*)()>;

// Of shared memory, and of what threads and blocks do in the same memory (probe_memory.cu).
Probes memory_probes();

}  // namespace probe
