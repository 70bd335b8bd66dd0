#pragma once

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "checks.h"
#include "stats.h"

// What the CUDA files share: launches, and sums that do not depend on the order in which blocks
// finish. A block takes whole pieces (stats.h), so that the partial sums are fixed.

namespace alwa_d2 {

constexpr int kThreads = 256;
static_assert(kPiece % kThreads == 0);

inline int blocks_for(int64_t n, int64_t per_block) {
  return static_cast<int>(std::min<int64_t>((n + per_block - 1) / per_block, 1 << 20));
}

// Runs f(i) for every i in [0, n).
template <typename F>
__global__ void for_each_kernel(int64_t n, F f) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n;
       i += int64_t(gridDim.x) * blockDim.x) {
    f(i);
  }
}

template <typename F>
void for_each_cuda(int64_t n, const F& f) {
  if (n > 0) {
    for_each_kernel<<<blocks_for(n, kThreads), kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        n, f);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

// The statistics of all threads of a block, in thread 0; a fixed tree.
__device__ inline Stats block_total(Stats mine) {
  __shared__ Stats shared[kThreads];
  shared[threadIdx.x] = mine;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      shared[threadIdx.x].merge(shared[threadIdx.x + half]);
    }
  }
  Stats total;
  if (threadIdx.x == 0) {
    total = shared[0];
  }
  __syncthreads();  // shared may be written again
  return total;
}

// parts[p] = statistics of what f(i, stats) adds for the i of piece p.
template <typename F>
__global__ void pieces_kernel(int64_t n, int64_t pieces, F f, double* parts) {
  for (int64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
    Stats mine;
    for (int64_t i = piece * kPiece + threadIdx.x; i < min(n, (piece + 1) * kPiece);
         i += kThreads) {
      f(i, mine);
    }
    const Stats total = block_total(mine);
    if (threadIdx.x == 0) {
      total.store(parts + piece * Stats::kSize);
    }
  }
}

// One block: the pieces' statistics, and the loss: their sum times scale and factor.
template <typename loss_t>
__global__ void total_kernel(
    int64_t pieces, const double* parts, const double* scale, double factor, loss_t* loss,
    double* values) {
  Stats mine;
  for (int64_t piece = threadIdx.x; piece < pieces; piece += kThreads) {
    const double* part = parts + piece * Stats::kSize;
    mine.merge({part[0], part[1], part[2], part[3], part[4]});
  }
  const Stats total = block_total(mine);
  if (threadIdx.x == 0) {
    *loss = static_cast<loss_t>(total.sum * (scale ? *scale * factor : factor));
    total.store(values);
  }
}

// `scale` in float64 on its device; not read on the host.
inline std::optional<at::Tensor> scale_on_device(const std::optional<at::Tensor>& scale) {
  return scale.has_value() ? std::optional<at::Tensor>(scale->to(at::kDouble)) : std::nullopt;
}

inline const double* pointer(const std::optional<at::Tensor>& scale) {
  return scale.has_value() ? scale->const_data_ptr<double>() : nullptr;
}

// (loss, statistics) of f(i, stats) over [0, n); `like` gives device and dtype.
template <typename loss_t, typename F>
std::tuple<at::Tensor, at::Tensor> sum_cuda(
    int64_t n, const at::Tensor& like, const std::optional<at::Tensor>& scale_, double factor,
    const F& f) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto options = like.options().dtype(at::kDouble);
  const int64_t pieces = number_of_pieces(n);
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  at::Tensor parts = at::empty({pieces, Stats::kSize}, options);
  at::Tensor values = at::empty({Stats::kSize}, options);
  at::Tensor loss = at::empty({}, like.options().dtype(c10::CppTypeToScalarType<loss_t>::value));
  if (pieces > 0) {
    pieces_kernel<<<blocks_for(pieces, 1), kThreads, 0, stream>>>(
        n, pieces, f, parts.data_ptr<double>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  total_kernel<<<1, kThreads, 0, stream>>>(
      pieces, parts.const_data_ptr<double>(), pointer(scale), factor, loss.data_ptr<loss_t>(),
      values.data_ptr<double>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {loss, values};
}

// What a gradient is multiplied with, read on the device: the incoming gradient of a reduced loss,
// scale and factor.
template <typename T>
struct CommonFactor {
  const T* grad;
  const double* scale;
  double factor;

  __device__ T operator()() const {
    return static_cast<T>(*grad * (scale ? *scale * factor : factor));
  }
};

}  // namespace alwa_d2
