#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "host_device.h"

namespace alwa_d2 {

// One level of a dense head's output as it lies in memory: (N, A * K, H, W) in any memory format.
// Anchors are counted in Detectron2's order: (level, H, W, A).
template <typename scalar_t>
struct Level {
  scalar_t* data;
  int64_t first;                // this level's first anchor among the R of an image
  int64_t anchors;              // H * W * A
  int64_t per_position, width;  // A, W
  int64_t stride_image, stride_anchor, stride_value, stride_row, stride_column;

  // The first of the K values of anchor r (counted over all levels); the next ones lie
  // stride_value apart.
  ALWA_HOST_DEVICE scalar_t* values(int64_t image, int64_t r) const {
    const int64_t local = r - first;
    const int64_t position = local / per_position;
    return data + image * stride_image + (local % per_position) * stride_anchor +
        (position / width) * stride_row + (position % width) * stride_column;
  }

  // Whether an image's values lie side by side, anchor after anchor: a flat tensor, channels last.
  bool in_rows(int64_t k) const {
    return (k == 1 || stride_value == 1) && (per_position == 1 || stride_anchor == k) &&
        (width == 1 || stride_column == per_position * k) &&
        (anchors == width * per_position || stride_row == width * per_position * k);
  }

  // Whether each channel of an image lies side by side, position after position: contiguous
  // (N, C, H, W).
  bool in_planes() const {
    return (width == 1 || stride_column == 1) &&
        (anchors == width * per_position || stride_row == width);
  }
};

template <typename scalar_t>
struct Levels {
  // Heads have 5 to 7. A CUDA kernel gets all levels, of the logits and of the gradients, by value,
  // and may have 4096 bytes of parameters.
  static constexpr int kMost = 16;
  Level<scalar_t> items[kMost];

  ALWA_HOST_DEVICE int index_of_anchor(int64_t r) const {
    int i = 0;
    while (r >= items[i].first + items[i].anchors) {
      ++i;
    }
    return i;
  }

  ALWA_HOST_DEVICE const Level<scalar_t>& of_anchor(int64_t r) const {
    return items[index_of_anchor(r)];
  }
};

// A head's predictions for an image: R anchors of K values each.
struct DenseShape {
  int64_t images, anchors, values;  // N, R, K
};

// const_data_ptr for what is only read: data_ptr would make a copy-on-write tensor copy its memory.
template <typename scalar_t>
scalar_t* memory_of(const at::Tensor& x) {
  if constexpr (std::is_const_v<scalar_t>) {
    return static_cast<scalar_t*>(x.const_data_ptr());
  } else {
    return static_cast<scalar_t*>(x.data_ptr());
  }
}

// A tensor for each level's gradient, without values.
inline std::vector<at::Tensor> empty_like(at::TensorList levels) {
  std::vector<at::Tensor> result;
  result.reserve(levels.size());
  for (const at::Tensor& level : levels) {
    result.push_back(at::empty_like(level));
  }
  return result;
}

// Describes predictions that have passed check_predictions (checks.h). A flat (N, HWA, K) level is
// one of one column: as if it were its (N, K, HWA, 1) view, with A = 1.
template <typename scalar_t>
Levels<scalar_t> make_levels(at::TensorList predictions, const DenseShape& shape) {
  Levels<scalar_t> levels{};
  int64_t first = 0;
  for (size_t i = 0; i < predictions.size(); ++i) {
    const at::Tensor& x = predictions[i];
    const bool flat = x.dim() == 3;
    const int channel = flat ? 2 : 1, row = flat ? 1 : 2;  // dimensions
    const int64_t width = flat ? 1 : x.size(3), stride_column = flat ? 1 : x.stride(3);
    const int64_t per_position =
        std::max<int64_t>(x.size(channel) / std::max<int64_t>(shape.values, 1), 1);
    // Without channels there are no anchors, whatever the extents.
    const int64_t anchors = shape.anchors == 0 ? 0 : x.size(row) * width * per_position;
    const int64_t stride_value = x.stride(channel), stride_anchor = stride_value * shape.values;
    levels.items[i] = {
        memory_of<scalar_t>(x), first,        anchors,       per_position, width, x.stride(0),
        stride_anchor,          stride_value, x.stride(row), stride_column};
    first += anchors;
  }
  return levels;
}

}  // namespace alwa_d2
