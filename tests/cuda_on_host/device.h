#pragma once

// What a CUDA file finds instead of CUDA when it is compiled for the host: included before every
// rewritten file (rewrite.py). This is the part that a precompiled header holds, so that PyTorch's
// headers are read once.

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/macros/Macros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <source_location>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// rewrite.py puts these in the place of __CUDACC__ and __CUDA_ARCH__, which PyTorch's headers look at.
#define CUDA_ON_HOST_COMPILER 1
#define CUDA_ON_HOST_ARCH 900

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace cuda_on_host {

using Place = std::source_location;

// Of the thread that runs.
struct Registers {
  dim3 thread, block, block_size, grid_size;
};
extern Registers registers;

// Ends the launch with an error that the host sees.
[[noreturn]] void trap(const char* what, const char* file, int line);

// Waits for the block; the number of its threads whose `value` is not 0.
int barrier(const char* name, int value, Place at);

// Waits for the lanes of `mask`; their values, and which of them have not ended.
struct Lanes {
  const uint64_t* values;
  unsigned present;
  unsigned self;
};
Lanes exchange(const char* name, unsigned mask, uint64_t value, Place at);

// The block's memory for the array that `key` stands for.
void* shared(const void* key, size_t bytes, size_t align, const char* name);

template <typename Tag>
char shared_key;

// A Tag is the type of a lambda, and so another one at each place and in each instantiation.
template <typename T, typename Tag>
T& shared(Tag, size_t align, const char* name) {
  return *static_cast<T*>(shared(&shared_key<Tag>, sizeof(T), std::max(align, alignof(T)), name));
}

void launch(
    const char* name, dim3 grid, dim3 block, size_t parameter_bytes,
    const std::function<void()>& thread);

struct Stream {};

// kernel<<<grid, block, bytes, stream>>>(args) is rewritten to
// Launch("kernel", grid, block, bytes, stream).run([&](auto... a) { kernel(a...); }, args).
struct Launch {
  const char* name;
  dim3 grid, block;

  Launch(const char* name_, dim3 grid_, dim3 block_, size_t dynamic_shared = 0, Stream = {})
      : name(name_), grid(grid_), block(block_) {
    TORCH_CHECK(dynamic_shared == 0, "cuda_on_host: no dynamic shared memory: ", name);
  }

  template <typename Kernel, typename... Args>
  void run(const Kernel& kernel, const Args&... args) const {
    size_t bytes = 0;
    ((bytes = (bytes + alignof(Args) - 1) / alignof(Args) * alignof(Args) + sizeof(Args)), ...);
    cuda_on_host::launch(name, grid, block, bytes, [&] { kernel(args...); });
  }
};

// After each launch, before the next one.
void launch_checked();

// Memory set from the host: counted like a launch.
void set_memory(void* to, int value, size_t bytes);

}  // namespace cuda_on_host

using cudaStream_t = cuda_on_host::Stream;
enum cudaError_t { cudaSuccess };

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = {}) {
  cuda_on_host::set_memory(to, value, bytes);
  return cudaSuccess;
}

#define threadIdx (::cuda_on_host::registers.thread)
#define blockIdx (::cuda_on_host::registers.block)
#define blockDim (::cuda_on_host::registers.block_size)
#define gridDim (::cuda_on_host::registers.grid_size)

#undef CUDA_KERNEL_ASSERT
#define CUDA_KERNEL_ASSERT(condition) \
  ((condition) ? void() : ::cuda_on_host::trap("device assertion: " #condition, __FILE__, __LINE__))

#include "intrinsics.h"
