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

// The images of a launch. Where their ground truth lies is known on the host, and given to the
// kernels by value: nothing is concatenated.
template <typename T>
struct Images {
  static constexpr int kMost = 64;
  int count;
  const T* boxes[kMost];          // (G, 4) of each image
  const int64_t* classes[kMost];  // (G,); null where they are not known
  int size[kMost];                // G
  int first[kMost];               // its first ground truth among those of the launch
};

template <typename T>
struct Problem {
  int64_t count;                       // R
  const T* anchors;                    // (R, 4)
  Int<T>* highest;                     // (sum of G,), bits of each ground truth's highest IoU
  bool low_quality;                    // whether that is wanted
  int64_t* labels;                     // (N, R)
  T* boxes;                            // (N, R, 4)
  unsigned long long* num_foreground;  // ()
};

template <typename T>
struct alignas(4 * sizeof(T)) Row {
  T x[4];
};

template <typename T>
__device__ MatchBox<T> anchor_of(const Problem<T>& p, int64_t r) {
  // Threads beyond the end take part with a box that overlaps nothing.
  if (r >= p.count) {
    return {};
  }
  const Row<T> row = *reinterpret_cast<const Row<T>*>(p.anchors + 4 * r);
  return match_box(row.x);
}

template <typename T>
__device__ bool takes_part(const Images<T>& images, int64_t g) {
  const int64_t* classes = images.classes[blockIdx.y];
  return classes == nullptr || !is_padding(classes[g]);
}

// Runs f(g, i, box) for an image's ground truths: g counts them, the box is the i-th of a tile in
// shared memory. Padding is passed over. before(g, i) and after(g, i) are run by one thread for
// each of a tile, padding too.
template <typename T, typename Before, typename F, typename After>
__device__ void for_each_gt(
    const Images<T>& images, const Before& before, const F& f, const After& after) {
  __shared__ MatchBox<T> tile[kThreads];
  __shared__ bool part[kThreads];
  const int total = images.size[blockIdx.y];
  for (int start = 0; start < total; start += kThreads) {
    const int mine = start + threadIdx.x;
    if (mine < total) {
      tile[threadIdx.x] = match_box(images.boxes[blockIdx.y] + 4 * int64_t(mine));
      part[threadIdx.x] = takes_part(images, mine);
      before(mine, threadIdx.x);
    }
    __syncthreads();
    const int size = min(total - start, kThreads);
    for (int i = 0; i < size; ++i) {
      if (part[i]) {  // the same for all threads
        f(start + i, i, tile[i]);
      }
    }
    __syncthreads();
    if (mine < total) {
      after(mine, threadIdx.x);
    }
  }
}

// The highest IoU of each ground truth. Integers' maxima do not depend on the order of the blocks.
template <typename T>
__global__ void __launch_bounds__(kThreads) highest_kernel(
    const __grid_constant__ Problem<T> p, const __grid_constant__ Images<T> images) {
  __shared__ Int<T> highest[kThreads];
  const MatchBox<T> anchor = anchor_of(p, blockIdx.x * int64_t(kThreads) + threadIdx.x);
  Int<T>* out = p.highest + images.first[blockIdx.y];
  for_each_gt(
      images, [&](int, int i) { highest[i] = 0; },
      [&](int, int i, const MatchBox<T>& gt) {
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
      [&](int g, int i) {
        if (highest[i] > 0) {
          atomicMax(&out[g], highest[i]);
        }
      });
}

// Labels and boxes. The IoUs are computed anew: cheaper than to keep them.
template <typename T>
__global__ void __launch_bounds__(kThreads) label_kernel(
    const __grid_constant__ Problem<T> p, const __grid_constant__ Images<T> images,
    const __grid_constant__ LabelRule<T> rule) {
  __shared__ Int<T> highest[kThreads];
  const int64_t r = blockIdx.x * int64_t(kThreads) + threadIdx.x;
  const MatchBox<T> anchor = anchor_of(p, r);
  const Int<T>* all_highest = p.highest + images.first[blockIdx.y];
  T best = 0;
  int index = -1;  // of the first ground truth that takes part, until a better one comes
  bool low_quality = false;
  for_each_gt(
      images, [&](int g, int i) { highest[i] = p.low_quality ? all_highest[g] : -1; },
      [&](int g, int i, const MatchBox<T>& gt) {
        const T iou = match_iou(gt, anchor);
        index = iou > best || index < 0 ? g : index;
        best = iou > best ? iou : best;
        low_quality = low_quality || bits_of(iou) == highest[i];
      },
      [](int, int) {});
  int match = 0;
  if (r < p.count) {
    int64_t label = rule.background;
    Row<T> box{};
    if (index >= 0) {
      const int64_t* classes = images.classes[blockIdx.y];
      match = low_quality ? 1 : rule.match(best);
      label = rule.label(match, classes ? classes[index] : 0);
      for (int k = 0; k < 4; ++k) {
        box.x[k] = images.boxes[blockIdx.y][4 * int64_t(index) + k];
      }
    }
    const int64_t i = blockIdx.y * p.count + r;
    p.labels[i] = label;
    *reinterpret_cast<Row<T>*>(p.boxes + 4 * i) = box;
  }
  const int foreground = __syncthreads_count(match == 1);
  if (threadIdx.x == 0 && foreground > 0) {
    atomicAdd(p.num_foreground, static_cast<unsigned long long>(foreground));
  }
}

template <typename T>
void launch(const Problem<T>& p, const Images<T>& images, const LabelRule<T>& rule) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const dim3 blocks((p.count + kThreads - 1) / kThreads, images.count);
  if (p.low_quality) {
    highest_kernel<<<blocks, kThreads, 0, stream>>>(p, images);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  label_kernel<<<blocks, kThreads, 0, stream>>>(p, images, rule);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// `x` as it has to lie in memory for vectors of four to be read.
template <typename T>
at::Tensor readable(const at::Tensor& x) {
  const at::Tensor rows = x.contiguous();
  const bool aligned = reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % sizeof(Row<T>) == 0;
  return aligned ? rows : rows.clone();
}

template <typename T>
void label_all(
    Problem<T> p, const std::vector<at::Tensor>& boxes, const std::vector<at::Tensor>& classes,
    const LabelRule<T>& rule) {
  const int64_t n = boxes.size();
  for (int64_t image = 0; image < n;) {
    Images<T> images{};
    int first = 0;
    for (; image + images.count < n && images.count < Images<T>::kMost; ++images.count) {
      const int64_t i = image + images.count;
      images.boxes[images.count] = boxes[i].const_data_ptr<T>();
      images.classes[images.count] =
          classes.empty() ? nullptr : classes[i].const_data_ptr<int64_t>();
      images.size[images.count] = static_cast<int>(boxes[i].size(0));
      images.first[images.count] = first;
      first += images.size[images.count];
    }
    launch(p, images, rule);
    image += images.count;
    p.highest += first;
    p.labels += images.count * p.count;
    p.boxes += images.count * p.count * 4;
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> label_anchors_cuda(
    const at::Tensor& anchors_, at::TensorList gt_boxes, at::TensorList gt_classes,
    at::ArrayRef<double> thresholds, at::IntArrayRef labels, bool allow_low_quality_matches,
    int64_t background, std::optional<int64_t> foreground) {
  check_label_anchors(anchors_, gt_boxes, gt_classes, thresholds, labels, foreground);
  const c10::cuda::CUDAGuard guard(anchors_.device());
  const int64_t n = gt_boxes.size(), r = anchors_.size(0);
  const auto longs = anchors_.options().dtype(at::kLong);
  at::Tensor out_labels = at::empty({n, r}, longs);
  at::Tensor out_boxes = at::empty({n, r, 4}, anchors_.options());
  std::vector<at::Tensor> boxes, classes;
  int64_t total = 0;
  for (const at::Tensor& x : gt_boxes) {
    boxes.push_back(x.to(anchors_.scalar_type()).contiguous());  // (G, 4)
    total += x.size(0);
  }
  for (const at::Tensor& x : gt_classes) {
    classes.push_back(x.contiguous());  // (G,)
  }
  // The number of foreground anchors, and behind it each ground truth's highest IoU: zero at once.
  const at::Tensor zeros = at::zeros({1 + total}, longs);
  if (n > 0 && r > 0) {
    AT_DISPATCH_FLOATING_TYPES(anchors_.scalar_type(), "label_anchors", [&] {
      using T = scalar_t;
      const at::Tensor anchors = readable<T>(anchors_);
      auto* count = reinterpret_cast<unsigned long long*>(zeros.data_ptr<int64_t>());
      const Problem<T> p{
          r, anchors.const_data_ptr<T>(), reinterpret_cast<Int<T>*>(count + 1),
          allow_low_quality_matches, out_labels.data_ptr<int64_t>(), out_boxes.data_ptr<T>(),
          count};
      label_all(p, boxes, classes, LabelRule<T>(thresholds, labels, background, foreground));
    });
  }
  return {out_labels, out_boxes, zeros[0]};
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) { m.impl("label_anchors", &label_anchors_cuda); }

}  // namespace
}  // namespace alwa_d2
