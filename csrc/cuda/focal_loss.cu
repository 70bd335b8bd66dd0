#include "focal_loss.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "cuda/focal_planes.cuh"
#include "cuda/focal_rows.cuh"
#include "cuda/focal_strided.cuh"
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

// Blocks that take `anchors` of each level's anchors.
template <typename T, typename scalar_t>
void plan_anchors(FocalPass<T, scalar_t>& pass, const Batch& batch, int anchors) {
  pass.plan = make_plan(batch.levels, batch.images, [&](size_t i) {
    return (pass.in.items[i].anchors + anchors - 1) / anchors;
  });
}

template <typename T, typename scalar_t>
void plan_planes(FocalPass<T, scalar_t>& pass, const Batch& batch) {
  pass.plan = make_plan(batch.levels, batch.images, [&](size_t i) {
    return (plane_shares(pass.in.items[i]) + kShares - 1) / kShares;
  });
  for (size_t i = 0; i < batch.levels; ++i) {
    pass.plan.aligned[i] = has_aligned_planes(pass.in.items[i]) &&
        (!pass.with_gradients || has_aligned_planes(pass.out.items[i]));
  }
}

template <typename T, typename scalar_t>
void plan_rows(FocalPass<T, scalar_t>& pass, const Batch& batch) {
  const int vectors = pass.values / kVector;
  pass.chunk = std::min(32, kRowVectors / vectors);
  pass.tile = std::min(kThreads, kRowLosses / row_losses_apart(vectors)) / pass.chunk * pass.chunk;
  plan_anchors(pass, batch, pass.tile);
}

template <typename T, typename scalar_t>
void plan_strided(FocalPass<T, scalar_t>& pass, const Batch& batch) {
  // As many lanes as have at least four numbers each, whose loads are under way together.
  for (pass.lanes = 1; pass.lanes < 32 && 8 * pass.lanes <= pass.values; pass.lanes *= 2) {
  }
  plan_anchors(pass, batch, kThreads);
}

template <bool gamma_is_two, typename T, typename scalar_t>
at::Tensor launch_pass(FocalPass<T, scalar_t>& pass, const Batch& batch) {
  const auto all = [&](const auto& predicate) { return all_levels(pass, batch.levels, predicate); };
  const bool planes = all([](const auto& level) { return level.in_planes(); });
  const bool rows = !planes && kVector <= pass.values && pass.values <= kVector * kRowVectors &&
      all([&](const auto& level) {
        return level.in_rows(pass.values) &&
            takes_vectors(level, {pass.values, level.stride_image});
      });
  if (planes) {
    plan_planes(pass, batch);
  } else if (rows) {
    plan_rows(pass, batch);
  } else {
    plan_strided(pass, batch);
  }
  return launch_planned(pass, batch, [&](int blocks, cudaStream_t stream) {
    if (planes) {
      focal_planes_kernel<gamma_is_two, T, scalar_t><<<blocks, kThreads, 0, stream>>>(pass);
    } else if (rows) {
      focal_rows_kernel<gamma_is_two, T, scalar_t><<<blocks, kThreads, 0, stream>>>(pass);
    } else {
      focal_strided_kernel<gamma_is_two, T, scalar_t><<<blocks, kThreads, 0, stream>>>(pass);
    }
  });
}

// One pass: gradients where there are tensors for them, times `grad` (1 where it is null), scale
// and factor; and, where they are wanted, each block's statistics.
at::Tensor focal_pass(
    const FocalArguments& args, const DenseShape& shape, at::TensorList gradients,
    const at::Tensor* grad, const double* scale, bool with_parts) {
  const at::Tensor labels = args.labels.contiguous();  // (N, R)
  check_indices(shape);
  const Batch batch{args.logits.size(), shape.images, with_parts, labels};
  at::Tensor parts;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, args.logits[0].scalar_type(), "sigmoid_focal_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        FocalPass<T, scalar_t> pass{
            make_levels<const scalar_t>(args.logits, shape),
            make_levels<scalar_t>(gradients, shape),
            !gradients.empty(),
            {},
            labels.const_data_ptr<int64_t>(),
            shape.anchors,
            static_cast<int>(shape.values),
            Focal<T>(args.alpha, args.gamma),
            {grad ? grad->const_data_ptr<T>() : nullptr, scale, args.factor},
            nullptr};
        parts = args.gamma == 2 ? launch_pass<true>(pass, batch) : launch_pass<false>(pass, batch);
      });
  return parts;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const FocalArguments& args, bool with_gradients) {
  const DenseShape shape = dense_shape(args.labels, check_focal(args));
  const c10::cuda::CUDAGuard guard(args.labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(args.scale);
  std::vector<at::Tensor> gradients;
  if (with_gradients) {
    gradients = empty_like(args.logits);
  }
  const at::Tensor parts = focal_pass(args, shape, gradients, nullptr, pointer(scale), true);
  auto [loss, values] = total_of(parts, args.logits[0], pointer(scale), args.factor);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_cuda(const FocalArguments& args) {
  auto [loss, values, none] = loss_and_gradients(args, false);
  return {std::move(loss), std::move(values)};
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> sigmoid_focal_loss_ahead_cuda(
    const FocalArguments& args) {
  return loss_and_gradients(args, true);
}

std::vector<at::Tensor> sigmoid_focal_loss_backward_cuda(
    const at::Tensor& grad, const FocalArguments& args) {
  const DenseShape shape = dense_shape(args.labels, check_focal(args));
  check_focal_grad(grad, args);
  const c10::cuda::CUDAGuard guard(args.labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(args.scale);
  std::vector<at::Tensor> result = empty_like(args.logits);
  focal_pass(args, shape, result, &grad, pointer(scale), false);
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("sigmoid_focal_loss", &FocalEntry::call<&sigmoid_focal_loss_cuda>);
  m.impl(
      "sigmoid_focal_loss_backward", &FocalEntry::call_backward<&sigmoid_focal_loss_backward_cuda>);
  m.impl("_sigmoid_focal_loss_ahead", &FocalEntry::call<&sigmoid_focal_loss_ahead_cuda>);
}

}  // namespace
}  // namespace alwa_d2
