#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "cuda/dense_box_kernel.cuh"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

template <typename scalar_t>
bool has_aligned_rows(const Level<scalar_t>& level) {
  return level.in_rows(4) && level.stride_image % 4 == 0 &&
      reinterpret_cast<uintptr_t>(level.data) % (4 * sizeof(scalar_t)) == 0;
}

template <typename T, typename scalar_t, typename Loss>
at::Tensor launch_pass(DensePass<T, scalar_t, Loss>& pass, const Batch& batch) {
  const auto& in = pass.losses.deltas.items;
  const auto& out = pass.out.items;
  const auto all_out = [&](const auto& predicate) {
    return pass.with_gradients && std::all_of(out, out + batch.levels, predicate);
  };
  pass.zeros = all_out([](const auto& level) { return level.in_planes(); }) ? Zeros::kPlanes
      : all_out(has_aligned_rows<scalar_t>)                                 ? Zeros::kRows
                                                                            : Zeros::kAnywhere;
  pass.plan = make_plan(batch.levels, batch.images, [&](size_t l) {
    const int64_t threads = pass.zeros == Zeros::kPlanes ? plane_shares(in[l]) : in[l].anchors;
    return (threads + kThreads - 1) / kThreads;
  });
  for (size_t l = 0; l < batch.levels; ++l) {
    pass.plan.aligned[l] = pass.zeros == Zeros::kPlanes && has_aligned_planes(out[l]);
  }
  return launch_planned(pass, batch, [&](int blocks, cudaStream_t stream) {
    dense_box_loss_kernel<<<blocks, kThreads, 0, stream>>>(pass);
  });
}

// One pass: gradients where there are tensors for them, times `grad` (1 where it is null), scale
// and factor; and, where they are wanted, each block's statistics.
at::Tensor dense_box_pass(
    const DenseBoxArguments& args, at::TensorList gradients, const at::Tensor* grad,
    const double* scale, bool with_parts) {
  const at::Tensor labels = args.labels.contiguous();  // (N, R)
  const DenseShape shape = dense_shape(labels, 4);
  check_indices(shape);
  const Batch batch{args.deltas.size(), shape.images, with_parts, labels};
  at::Tensor parts;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, args.deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        with_anchor_losses<scalar_t>(args, shape, [&](const auto& losses) {
          using Loss = std::decay_t<decltype(losses.loss)>;
          DensePass<T, scalar_t, Loss> pass{
              losses,
              make_levels<scalar_t>(gradients, shape),
              !gradients.empty(),
              Zeros::kAnywhere,
              {},
              IsForeground(labels, args.num_classes),
              {grad ? grad->const_data_ptr<T>() : nullptr, scale, args.factor},
              nullptr};
          parts = launch_pass(pass, batch);
        });
      });
  return parts;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const DenseBoxArguments& args, bool with_gradients) {
  check_dense_box(args);
  const c10::cuda::CUDAGuard guard(args.labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(args.scale);
  std::vector<at::Tensor> gradients;
  if (with_gradients) {
    gradients = empty_like(args.deltas);
  }
  const at::Tensor parts = dense_box_pass(args, gradients, nullptr, pointer(scale), true);
  auto [loss, values] = total_of(parts, args.deltas[0], pointer(scale), args.factor);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cuda(const DenseBoxArguments& args) {
  auto [loss, values, none] = loss_and_gradients(args, false);
  return {std::move(loss), std::move(values)};
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> dense_box_loss_ahead_cuda(
    const DenseBoxArguments& args) {
  return loss_and_gradients(args, true);
}

std::vector<at::Tensor> dense_box_loss_backward_cuda(
    const at::Tensor& grad, const DenseBoxArguments& args) {
  check_dense_box(args);
  check_dense_box_grad(grad, args);
  const c10::cuda::CUDAGuard guard(args.labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(args.scale);
  std::vector<at::Tensor> result = empty_like(args.deltas);
  dense_box_pass(args, result, &grad, pointer(scale), false);
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("dense_box_loss", &DenseBoxEntry::call<&dense_box_loss_cuda>);
  m.impl("dense_box_loss_backward", &DenseBoxEntry::call_backward<&dense_box_loss_backward_cuda>);
  m.impl("_dense_box_loss_ahead", &DenseBoxEntry::call<&dense_box_loss_ahead_cuda>);
}

}  // namespace
}  // namespace alwa_d2
