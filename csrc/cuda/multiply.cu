#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

// The memory of several tensors, and what it is multiplied with.
template <typename T, typename scalar_t>
struct Multiply {
  static constexpr int kMost = Levels<scalar_t>::kMost;
  scalar_t* data[kMost];
  int64_t size[kMost];
  int count;
  const T* grad;
};

constexpr int kMultiplyBlocks = 528;  // 4 for each multiprocessor of an H100

// Does nothing where the factor is 1, as it is for loss.backward().
template <typename T, typename scalar_t>
__global__ void __launch_bounds__(kThreads)
    multiply_kernel(const __grid_constant__ Multiply<T, scalar_t> job) {
  const T factor = *job.grad;
  if (factor == 1) {
    return;
  }
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t threads = int64_t(gridDim.x) * kThreads;
  for (int t = 0; t < job.count; ++t) {
    scalar_t* data = job.data[t];
    const bool aligned = reinterpret_cast<uintptr_t>(data) % alignof(Vector<scalar_t>) == 0;
    const int64_t vectors = aligned ? job.size[t] / kVector : 0;
#pragma unroll 4
    for (int64_t i = thread; i < vectors; i += threads) {
      Vector<scalar_t> vector = load_vector(data + i * kVector);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        vector.x[j] = static_cast<scalar_t>(factor * static_cast<T>(vector.x[j]));
      }
      store_vector(data + i * kVector, vector);
    }
    for (int64_t i = vectors * kVector + thread; i < job.size[t]; i += threads) {
      data[i] = static_cast<scalar_t>(factor * static_cast<T>(data[i]));
    }
  }
}

// Gradients fill their memory: they were made like the inputs.
void multiply_cuda(at::TensorList gradients, const at::Tensor& grad) {
  TORCH_INTERNAL_ASSERT(
      !gradients.empty() && gradients.size() <= Levels<float>::kMost && grad.dim() == 0);
  const c10::cuda::CUDAGuard guard(grad.device());
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, gradients[0].scalar_type(), "_multiply_", [&] {
        using T = at::opmath_type<scalar_t>;
        Multiply<T, scalar_t> job{};
        job.grad = grad.const_data_ptr<T>();
        int64_t largest = 0;
        for (const at::Tensor& gradient : gradients) {
          TORCH_INTERNAL_ASSERT(
              gradient.is_non_overlapping_and_dense() && gradient.device() == grad.device());
          job.data[job.count] = gradient.data_ptr<scalar_t>();
          job.size[job.count++] = gradient.numel();
          largest = std::max(largest, gradient.numel());
        }
        if (largest > 0) {
          // Few blocks, which come and go quickly where the factor is 1. Where it is not, they are
          // enough for memory: an H200 moved 258 MB in 70 us.
          const int64_t vectors = (largest + kVector - 1) / kVector;
          const int64_t blocks =
              std::min<int64_t>((vectors + kThreads - 1) / kThreads, kMultiplyBlocks);
          multiply_kernel<<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(job);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
        }
      });
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) { m.impl("_multiply_", &multiply_cuda); }

}  // namespace
}  // namespace alwa_d2
