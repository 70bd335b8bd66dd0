#pragma once

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "checks.h"
#include "cuda/block.cuh"

// What the CUDA files share on the host: how a pass is launched, and how its sum ends.

namespace alwa_d2 {

// One block merges all parts: into the statistics, and the loss, their sum times scale and factor.
template <typename loss_t>
__global__ void __launch_bounds__(kThreads) total_kernel(
    int64_t count, const double* parts, const double* scale, double factor, loss_t* loss,
    double* values) {
  Stats mine;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    mine.merge(Stats::load(parts + i * Stats::kSize));
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

// (blocks, 5): memory for each block's statistics; `like` gives the device.
inline at::Tensor empty_parts(int64_t blocks, const at::Tensor& like) {
  return at::empty({blocks, Stats::kSize}, like.options().dtype(at::kDouble));
}

// (loss, statistics) of all blocks' parts.
inline std::tuple<at::Tensor, at::Tensor> total_of(
    const at::Tensor& parts, const at::Tensor& like, const double* scale, double factor) {
  at::Tensor values = at::empty({Stats::kSize}, parts.options());
  at::Tensor loss = at::empty({}, like.options().dtype(reduced_dtype(like)));
  const auto run = [&](auto* loss_memory) {
    total_kernel<<<1, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(
        parts.size(0), parts.const_data_ptr<double>(), scale, factor, loss_memory,
        values.data_ptr<double>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  if (loss.scalar_type() == at::kDouble) {
    run(loss.data_ptr<double>());
  } else {
    run(loss.data_ptr<float>());
  }
  return {loss, values};
}

// On the device an image's anchors and classes are counted in int, a little beyond their end: up to
// half of its range nothing overflows.
inline void check_indices(const DenseShape& shape) {
  TORCH_CHECK_VALUE(
      std::max(shape.anchors, shape.values) <= 1 << 30,
      "expected at most 2^30 anchors an image and classes, got ", shape.anchors, " and ",
      shape.values);
}

// What the host needs for the launch of a pass, besides its kernel's parameters.
struct Batch {
  size_t levels;
  int64_t images;
  bool with_parts;         // whether each block's statistics are wanted
  const at::Tensor& like;  // gives the device
};

// Launches a pass that has its plan: launch(blocks, stream) starts the kernel. Returns the blocks'
// parts where they are wanted.
template <typename Pass, typename F>
at::Tensor launch_planned(Pass& pass, const Batch& batch, const F& launch) {
  const int blocks = static_cast<int>(pass.plan.blocks_per_image * batch.images);
  at::Tensor parts = empty_parts(batch.with_parts ? blocks : 0, batch.like);
  pass.parts = batch.with_parts ? parts.data_ptr<double>() : nullptr;
  if (blocks > 0) {
    launch(blocks, c10::cuda::getCurrentCUDAStream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return parts;
}

// Whether vectors may be read from (written to) a level: its address is aligned, and these strides
// are multiples of a vector's numbers.
template <typename scalar_t>
bool takes_vectors(const Level<scalar_t>& level, std::initializer_list<int64_t> strides) {
  return reinterpret_cast<uintptr_t>(level.data) % alignof(Vector<scalar_t>) == 0 &&
      std::all_of(strides.begin(), strides.end(), [](int64_t x) { return x % kVector == 0; });
}

// Whether all images' channels of a level may be read as vectors of neighbouring positions.
template <typename scalar_t>
bool has_aligned_planes(const Level<scalar_t>& level) {
  return takes_vectors(
      level,
      {level.anchors / level.per_position, level.stride_image, level.stride_anchor,
       level.stride_value});
}

// A plan with blocks_of(i) blocks for level i of each image.
template <typename F>
Plan make_plan(size_t levels, int64_t images, const F& blocks_of) {
  Plan plan;
  int64_t blocks = 0;
  for (size_t i = 0; i < Levels<float>::kMost; ++i) {
    blocks += i < levels ? blocks_of(i) : 0;
    plan.first_block[i + 1] = static_cast<int>(blocks);
  }
  TORCH_CHECK_VALUE(
      blocks * images <= std::numeric_limits<int>::max(),
      "expected at most 2^31 - 1 blocks of anchors, got ", blocks, " in each of ", images,
      " images");
  plan.blocks_per_image = static_cast<int>(blocks);
  return plan;
}

// How many PlaneShares a level has.
template <typename scalar_t>
int64_t plane_shares(const Level<scalar_t>& level) {
  return (level.anchors / level.per_position + kVector - 1) / kVector * level.per_position;
}

}  // namespace alwa_d2
