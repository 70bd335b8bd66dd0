#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "cuda/launch.cuh"
#include "matching.h"

namespace alwa_d2 {
namespace {

// Which of the concatenated ground truths belong to which image of a launch: known on the host, and
// given to the kernels by value.
struct Images {
  static constexpr int kMost = 64;
  int count;
  int64_t first[kMost + 1];  // image i has those from first[i] to first[i + 1]
};

template <typename T>
struct Problem {
  int64_t count;              // R
  const T* anchors;           // (R, 4)
  const T* gt_boxes;          // (sum of G, 4)
  const int64_t* gt_classes;  // (sum of G,)
  Int<T>* highest;            // (sum of G,), bits of each one's highest IoU; null if not wanted
  int64_t* labels;            // (N, R)
  T* boxes;                   // (N, R, 4)

  __device__ MatchBox<T> anchor(int64_t r) const {
    // Threads beyond the end take part with a box that overlaps nothing.
    return r < count ? match_box(anchors + 4 * r) : MatchBox<T>{};
  }
};

// Runs f(g, i, box) for the ground truths [first, last): g counts them, the box is the i-th of a
// tile in shared memory. before(g, i) and after(g, i) are run by one thread for each of a tile.
template <typename T, typename Before, typename F, typename After>
__device__ void for_each_gt(
    int64_t first, int64_t last, const T* gt_boxes, const Before& before, const F& f,
    const After& after) {
  __shared__ MatchBox<T> tile[kThreads];
  for (int64_t start = first; start < last; start += kThreads) {
    const int64_t mine = start + threadIdx.x;
    if (mine < last) {
      tile[threadIdx.x] = match_box(gt_boxes + 4 * mine);
      before(mine, threadIdx.x);
    }
    __syncthreads();
    const int size = static_cast<int>(min(last - start, int64_t(kThreads)));
    for (int i = 0; i < size; ++i) {
      f(start + i, i, tile[i]);
    }
    __syncthreads();
    if (mine < last) {
      after(mine, threadIdx.x);
    }
  }
}

// The highest IoU of each ground truth. Integers' maxima do not depend on the order of the blocks.
template <typename T>
__global__ void highest_kernel(Problem<T> p, Images images) {
  __shared__ Int<T> highest[kThreads];
  const MatchBox<T> anchor = p.anchor(blockIdx.x * int64_t(kThreads) + threadIdx.x);
  for_each_gt(
      images.first[blockIdx.y], images.first[blockIdx.y + 1], p.gt_boxes,
      [&](int64_t, int i) { highest[i] = 0; },
      [&](int64_t, int i, const MatchBox<T>& gt) {
        Int<T> bits = bits_of(match_iou(gt, anchor));
        if (__any_sync(0xffffffff, bits > 0)) {
          for (int lane = 16; lane > 0; lane /= 2) {
            bits = max(bits, __shfl_xor_sync(0xffffffff, bits, lane));
          }
          if (threadIdx.x % 32 == 0) {
            atomicMax(&highest[i], bits);
          }
        }
      },
      [&](int64_t g, int i) {
        if (highest[i] > 0) {
          atomicMax(&p.highest[g], highest[i]);
        }
      });
}

// Labels and boxes. The IoUs are computed anew: cheaper than to keep them.
template <typename T>
__global__ void label_kernel(Problem<T> p, Images images, LabelRule<T> rule) {
  const int64_t r = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  const int64_t first = images.first[blockIdx.y], last = images.first[blockIdx.y + 1];
  __shared__ Int<T> highest[kThreads];
  const MatchBox<T> anchor = p.anchor(r);
  T best = 0;
  int64_t index = first;
  bool low_quality = false;
  for_each_gt(
      first, last, p.gt_boxes,
      [&](int64_t g, int i) { highest[i] = p.highest ? p.highest[g] : -1; },
      [&](int64_t g, int i, const MatchBox<T>& gt) {
        const T iou = match_iou(gt, anchor);
        index = iou > best ? g : index;
        best = iou > best ? iou : best;
        low_quality = low_quality || bits_of(iou) == highest[i];
      },
      [](int64_t, int) {});
  if (r < p.count) {
    const bool empty = first == last;
    const int64_t own = empty ? rule.background : p.gt_classes[index];
    const int64_t i = blockIdx.y * p.count + r;
    p.labels[i] = empty || low_quality ? own : rule(best, own);
    for (int k = 0; k < 4; ++k) {
      p.boxes[4 * i + k] = empty ? T(0) : p.gt_boxes[4 * index + k];
    }
  }
}

template <typename T>
void launch(Problem<T> p, const Images& images, const LabelRule<T>& rule) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const dim3 blocks((p.count + kThreads - 1) / kThreads, images.count);
  if (p.highest) {
    highest_kernel<<<blocks, kThreads, 0, stream>>>(p, images);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  label_kernel<<<blocks, kThreads, 0, stream>>>(p, images, rule);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<at::Tensor, at::Tensor> label_anchors_cuda(
    const at::Tensor& anchors_, at::TensorList gt_boxes_, at::TensorList gt_classes_,
    at::ArrayRef<double> thresholds, at::IntArrayRef labels, bool allow_low_quality_matches,
    int64_t background) {
  check_label_anchors(anchors_, gt_boxes_, gt_classes_, thresholds, labels);
  const c10::cuda::CUDAGuard guard(anchors_.device());
  const int64_t n = gt_boxes_.size(), r = anchors_.size(0);
  const at::Tensor anchors = anchors_.contiguous();
  at::Tensor out_labels = at::empty({n, r}, anchors.options().dtype(at::kLong));
  at::Tensor out_boxes = at::empty({n, r, 4}, anchors.options());
  if (n == 0 || r == 0) {
    return {out_labels, out_boxes};
  }
  const at::Tensor gt_boxes = at::cat(gt_boxes_).to(anchors.scalar_type());  // (sum of G, 4)
  const at::Tensor gt_classes = at::cat(gt_classes_);                        // (sum of G,)
  AT_DISPATCH_FLOATING_TYPES(anchors.scalar_type(), "label_anchors", [&] {
    using T = scalar_t;
    const LabelRule<T> rule(thresholds, labels, background);
    const auto bits = anchors.options().dtype(sizeof(T) == 4 ? at::kInt : at::kLong);
    const at::Tensor highest = at::zeros({gt_boxes.size(0)}, bits);
    Images images{};
    for (int64_t image = 0; image < n; image += images.count) {
      images.first[0] = images.first[images.count];
      images.count = static_cast<int>(std::min<int64_t>(n - image, Images::kMost));
      for (int i = 0; i < images.count; ++i) {
        images.first[i + 1] = images.first[i] + gt_boxes_[image + i].size(0);
      }
      launch<T>(
          {r, anchors.const_data_ptr<T>(), gt_boxes.const_data_ptr<T>(),
           gt_classes.const_data_ptr<int64_t>(),
           allow_low_quality_matches ? static_cast<Int<T>*>(highest.data_ptr()) : nullptr,
           out_labels.data_ptr<int64_t>() + image * r, out_boxes.data_ptr<T>() + image * r * 4},
          images, rule);
    }
  });
  return {out_labels, out_boxes};
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) { m.impl("label_anchors", &label_anchors_cuda); }

}  // namespace
}  // namespace alwa_d2
