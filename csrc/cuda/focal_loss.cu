#include "focal_loss.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "cuda/focal_planes.cuh"
#include "cuda/focal_rows.cuh"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

// Whether predicate(level of the logits, and of the gradients where there are some) holds for all.
template <typename T, typename scalar_t, typename F>
bool all_levels(const FocalPass<T, scalar_t>& pass, size_t levels, const F& predicate) {
  for (size_t i = 0; i < levels; ++i) {
    if (!predicate(pass.in.items[i]) || (pass.with_gradients && !predicate(pass.out.items[i]))) {
      return false;
    }
  }
  return true;
}

template <typename T, typename scalar_t>
void plan_planes(FocalPass<T, scalar_t>& pass, size_t levels, int64_t images) {
  pass.plan =
      make_plan(levels, images, [&](size_t i) { return blocks_of_planes(pass.in.items[i]); });
  for (size_t i = 0; i < levels; ++i) {
    pass.plan.aligned[i] = has_aligned_planes(pass.in.items[i]) &&
        (!pass.with_gradients || has_aligned_planes(pass.out.items[i]));
  }
}

template <typename T, typename scalar_t>
void plan_rows(FocalPass<T, scalar_t>& pass, size_t levels, int64_t images, bool vectors) {
  pass.plan = make_plan(levels, images, [&](size_t i) {
    return (pass.in.items[i].anchors + kRowAnchors - 1) / kRowAnchors;
  });
  // At least four vectors a thread, whose loads are under way together.
  const int count = pass.values / (vectors ? Vector<scalar_t>::kSize : 1);
  for (pass.lanes = 1; pass.lanes < 32 && 8 * pass.lanes <= count; pass.lanes *= 2) {
  }
}

template <bool gamma_is_two, typename T, typename scalar_t>
at::Tensor launch_pass(
    FocalPass<T, scalar_t>& pass, size_t levels, int64_t images, bool with_parts,
    const at::Tensor& like) {
  const auto in_rows = [&](const auto& level) { return level.in_rows(pass.values); };
  const auto takes_rows = [&](const auto& level) {
    return takes_vectors(level, {pass.values, level.stride_image});
  };
  const bool planes = all_levels(pass, levels, [](const auto& level) { return level.in_planes(); });
  const bool vectors =
      !planes && all_levels(pass, levels, in_rows) && all_levels(pass, levels, takes_rows);
  if (planes) {
    plan_planes(pass, levels, images);
  } else {
    plan_rows(pass, levels, images, vectors);
  }
  const int blocks = static_cast<int>(pass.plan.blocks_per_image * images);
  at::Tensor parts = empty_parts(with_parts ? blocks : 0, like);
  pass.parts = with_parts ? parts.data_ptr<double>() : nullptr;
  if (blocks > 0) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    if (planes) {
      focal_planes_kernel<gamma_is_two, T, scalar_t><<<blocks, kThreads, 0, stream>>>(pass);
    } else if (vectors) {
      focal_rows_kernel<gamma_is_two, true, T, scalar_t><<<blocks, kThreads, 0, stream>>>(pass);
    } else {
      focal_rows_kernel<gamma_is_two, false, T, scalar_t><<<blocks, kThreads, 0, stream>>>(pass);
    }
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return parts;
}

// One pass: gradients where there are tensors for them, times `grad` (1 where it is null), scale
// and factor; and, where they are wanted, each block's statistics.
at::Tensor focal_pass(
    at::TensorList logits, at::TensorList gradients, const at::Tensor& labels_,
    const DenseShape& shape, double alpha, double gamma, const at::Tensor* grad,
    const double* scale, double factor, bool with_parts) {
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  check_indices(shape);
  at::Tensor parts;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, logits[0].scalar_type(), "sigmoid_focal_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        FocalPass<T, scalar_t> pass{
            make_levels<const scalar_t>(logits, shape),
            make_levels<scalar_t>(gradients, shape),
            !gradients.empty(),
            {},
            1,
            labels.const_data_ptr<int64_t>(),
            shape.anchors,
            static_cast<int>(shape.values),
            Focal<T>(alpha, gamma),
            {grad ? grad->const_data_ptr<T>() : nullptr, scale, factor},
            nullptr};
        parts = gamma == 2
            ? launch_pass<true>(pass, logits.size(), shape.images, with_parts, logits[0])
            : launch_pass<false>(pass, logits.size(), shape.images, with_parts, logits[0]);
      });
  return parts;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    at::TensorList logits, std::vector<at::Tensor> gradients, const at::Tensor& labels,
    const DenseShape& shape, double alpha, double gamma, const std::optional<at::Tensor>& scale_,
    double factor) {
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  const at::Tensor parts = focal_pass(
      logits, gradients, labels, shape, alpha, gamma, nullptr, pointer(scale), factor, true);
  auto [loss, values] = total_of(parts, logits[0], pointer(scale), factor);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_cuda(
    at::TensorList logits, const at::Tensor& labels, double alpha, double gamma,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_focal(logits, labels, gamma, scale);
  const c10::cuda::CUDAGuard guard(labels.device());
  auto [loss, values, none] =
      loss_and_gradients(logits, {}, labels, shape, alpha, gamma, scale, factor);
  return {std::move(loss), std::move(values)};
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> sigmoid_focal_loss_ahead_cuda(
    at::TensorList logits, const at::Tensor& labels, double alpha, double gamma,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_focal(logits, labels, gamma, scale);
  const c10::cuda::CUDAGuard guard(labels.device());
  return loss_and_gradients(logits, empty_like(logits), labels, shape, alpha, gamma, scale, factor);
}

std::vector<at::Tensor> sigmoid_focal_loss_backward_cuda(
    const at::Tensor& grad, at::TensorList logits, const at::Tensor& labels, double alpha,
    double gamma, const std::optional<at::Tensor>& scale_, double factor) {
  const DenseShape shape = check_focal(logits, labels, gamma, scale_);
  check_grad(grad, {}, reduced_dtype(logits[0]), logits[0]);
  const c10::cuda::CUDAGuard guard(labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  std::vector<at::Tensor> result = empty_like(logits);
  focal_pass(logits, result, labels, shape, alpha, gamma, &grad, pointer(scale), factor, false);
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("sigmoid_focal_loss", &sigmoid_focal_loss_cuda);
  m.impl("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward_cuda);
  m.impl("_sigmoid_focal_loss_ahead", &sigmoid_focal_loss_ahead_cuda);
}

}  // namespace
}  // namespace alwa_d2
