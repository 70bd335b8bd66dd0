#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "cuda/label_kernels.cuh"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

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

std::tuple<at::Tensor, at::Tensor, at::Tensor> label_anchors_cuda(const LabelArguments& args) {
  check_label_anchors(args);
  const c10::cuda::CUDAGuard guard(args.anchors.device());
  const at::ScalarType dtype = args.anchors.scalar_type();
  const int64_t n = args.gt_boxes.size(), r = args.anchors.size(0);
  const auto longs = args.anchors.options().dtype(at::kLong);
  at::Tensor out_labels = at::empty({n, r}, longs);
  at::Tensor out_boxes = at::empty({n, r, 4}, args.anchors.options());
  std::vector<at::Tensor> boxes, classes;
  int64_t total = 0;
  for (const at::Tensor& x : args.gt_boxes) {
    boxes.push_back(x.to(dtype).contiguous());  // (G, 4)
    total += x.size(0);
  }
  for (const at::Tensor& x : args.gt_classes) {
    classes.push_back(x.contiguous());  // (G,)
  }
  // The number of foreground anchors, and behind it each ground truth's highest IoU: zero at once.
  const at::Tensor zeros = at::zeros({1 + total}, longs);
  if (n > 0 && r > 0) {
    AT_DISPATCH_FLOATING_TYPES(dtype, "label_anchors", [&] {
      using T = scalar_t;
      const at::Tensor anchors = readable<T>(args.anchors);
      auto* count = reinterpret_cast<unsigned long long*>(zeros.data_ptr<int64_t>());
      const Problem<T> p{
          r,
          anchors.const_data_ptr<T>(),
          reinterpret_cast<Int<T>*>(count + 1),
          args.allow_low_quality_matches,
          out_labels.data_ptr<int64_t>(),
          out_boxes.data_ptr<T>(),
          count};
      label_all(p, boxes, classes, LabelRule<T>(args));
    });
  }
  return {out_labels, out_boxes, zeros[0]};
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("label_anchors", &LabelEntry::call<&label_anchors_cuda>);
}

}  // namespace
}  // namespace alwa_d2
