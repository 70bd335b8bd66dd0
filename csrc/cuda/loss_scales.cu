#include "loss_scales.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

struct Job {
  const int64_t* count;        // (), the number of foreground anchors; or
  const double* double_count;  // a mean of such numbers
  double* normalizer;          // ()
  const double* weights[kMostWeights];
  int size;
  double momentum;
  bool update;
  double* scales;  // (size + 1,)
};

// One thread.
__global__ void loss_scales_kernel(const __grid_constant__ Job job) {
  double normalizer = *job.normalizer;
  if (job.update) {
    const double count = job.count ? static_cast<double>(*job.count) : *job.double_count;
    normalizer = next_normalizer(normalizer, count, job.momentum);
    *job.normalizer = normalizer;
  }
  for (int i = 0; i < job.size; ++i) {
    job.scales[i] = *job.weights[i] / normalizer;
  }
  job.scales[job.size] = 1 / normalizer;
}

at::Tensor loss_scales_cuda(
    const at::Tensor& num_foreground, at::Tensor normalizer, at::TensorList weights,
    double momentum, bool update) {
  check_loss_scales(num_foreground, normalizer, weights, momentum);
  const c10::cuda::CUDAGuard guard(normalizer.device());
  const auto size = static_cast<int>(weights.size());
  at::Tensor scales = at::empty({size + 1}, normalizer.options());
  const bool is_double = num_foreground.scalar_type() == at::kDouble;
  Job job{};
  job.count = is_double ? nullptr : num_foreground.const_data_ptr<int64_t>();
  job.double_count = is_double ? num_foreground.const_data_ptr<double>() : nullptr;
  job.normalizer = normalizer.data_ptr<double>();
  for (int i = 0; i < size; ++i) {
    job.weights[i] = weights[i].const_data_ptr<double>();
  }
  job.size = size;
  job.momentum = momentum;
  job.update = update;
  job.scales = scales.data_ptr<double>();
  loss_scales_kernel<<<1, 1, 0, c10::cuda::getCurrentCUDAStream()>>>(job);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return scales;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) { m.impl("loss_scales", &loss_scales_cuda); }

}  // namespace
}  // namespace alwa_d2
