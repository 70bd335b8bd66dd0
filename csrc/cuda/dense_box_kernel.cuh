#pragma once

#include "box_loss.h"
#include "cuda/block.cuh"

namespace alwa_d2 {

// How a level's gradients are filled with zeros.
enum class Zeros { kPlanes, kRows, kAnywhere };

// What a launch works on. A thread looks at the labels of a few anchors, writes zeros for all of
// them, and then the gradients of those that are foreground.
template <typename T, typename scalar_t, typename Loss>
struct DensePass {
  AnchorLosses<T, scalar_t, Loss> losses;
  Levels<scalar_t> out;
  bool with_gradients;  // whether `out` is there
  Zeros zeros;          // with kPlanes a thread has a PlaneShare, otherwise one anchor
  Plan plan;
  IsForeground is_foreground;
  CommonFactor<T> common;
  double* parts;  // (blocks, 5), or null where only gradients are wanted

  __device__ void fill_plane(const Plan::Place& place, const PlaneShare& share) const {
    const Level<scalar_t>& level = out.items[place.level];
    for (int k = 0; k < 4; ++k) {
      scalar_t* to = share.memory(level, place.image) + k * level.stride_value;
      if (plan.aligned[place.level]) {
        store_vector(to, Vector<scalar_t>{});
      } else {
        for (int j = 0; j < share.count; ++j) {
          to[j * share.step] = 0;
        }
      }
    }
  }

  // n counts the level's anchors.
  __device__ void fill_anchor(const Plan::Place& place, int64_t n) const {
    const Level<scalar_t>& level = out.items[place.level];
    if (zeros == Zeros::kRows) {  // found without a division, written at once
      struct alignas(4 * sizeof(scalar_t)) Row {
        scalar_t x[4];
      };
      scalar_t* to = level.data + place.image * level.stride_image + 4 * n;
      *reinterpret_cast<Row*>(to) = Row{};
    } else {
      scalar_t* to = level.values(place.image, level.first + n);
      for (int k = 0; k < 4; ++k) {
        to[k * level.stride_value] = 0;
      }
    }
  }
};

// Two blocks a multiprocessor, since the compiler aimed at more without this, and spilled
// registers.
template <typename T, typename scalar_t, typename Loss>
__global__ void __launch_bounds__(kThreads, 2)
    dense_box_loss_kernel(const __grid_constant__ DensePass<T, scalar_t, Loss> pass) {
  const Plan::Place place = pass.plan.place();
  const auto& level = pass.losses.deltas.items[place.level];
  const int64_t anchors = pass.losses.anchors_per_image;
  const int64_t n = int64_t(place.block) * kThreads + threadIdx.x;
  int64_t i = place.image * anchors + level.first + n, step = 0;  // the thread's anchors
  int count = n < level.anchors;
  if (pass.zeros == Zeros::kPlanes) {
    const PlaneShare share(level, pass.plan.aligned[place.level], static_cast<int>(n));
    i = share.anchor(level, place.image, anchors);
    step = share.step * level.per_position;
    count = share.count;
    if (pass.with_gradients && count > 0) {
      pass.fill_plane(place, share);
    }
  } else if (pass.with_gradients && count > 0) {
    pass.fill_anchor(place, n);
  }

  // All labels are asked for before the first one is looked at.
  unsigned foreground = 0;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    foreground |= j < count && pass.is_foreground(i + j * step) ? 1u << j : 0u;
  }
  Stats stats;
  for (; foreground != 0; foreground &= foreground - 1) {
    const int64_t mine = i + (__ffs(foreground) - 1) * step;
    const PairLoss<T> loss = pass.losses(mine);
    stats.add(loss.value);
    if (pass.with_gradients) {
      pass.losses.store_gradient(mine, loss, pass.common(), pass.out);
    }
  }
  if (pass.parts) {
    if (__syncthreads_or(stats.count > 0)) {
      store_total(block_total(stats), pass.parts);
    } else {
      store_total(stats, pass.parts);
    }
  }
}

}  // namespace alwa_d2
