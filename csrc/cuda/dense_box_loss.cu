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
at::Tensor launch_pass(
    DensePass<T, scalar_t, Loss>& pass, size_t levels, int64_t images, bool with_parts,
    const at::Tensor& like) {
  const auto& in = pass.losses.deltas.items;
  const auto& out = pass.out.items;
  const auto all_out = [&](const auto& predicate) {
    return pass.with_gradients && std::all_of(out, out + levels, predicate);
  };
  pass.zeros = all_out([](const auto& level) { return level.in_planes(); }) ? Zeros::kPlanes
      : all_out(has_aligned_rows<scalar_t>)                                 ? Zeros::kRows
                                                                            : Zeros::kAnywhere;
  pass.plan = make_plan(levels, images, [&](size_t l) {
    return pass.zeros == Zeros::kPlanes ? blocks_of_planes(in[l])
                                        : (in[l].anchors + kThreads - 1) / kThreads;
  });
  for (size_t l = 0; l < levels; ++l) {
    pass.plan.aligned[l] = pass.zeros == Zeros::kPlanes && has_aligned_planes(out[l]);
  }
  const int blocks = static_cast<int>(pass.plan.blocks_per_image * images);
  at::Tensor parts = empty_parts(with_parts ? blocks : 0, like);
  pass.parts = with_parts ? parts.data_ptr<double>() : nullptr;
  if (blocks > 0) {
    dense_box_loss_kernel<<<blocks, kThreads, 0, c10::cuda::getCurrentCUDAStream()>>>(pass);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return parts;
}

// One pass: gradients where there are tensors for them, times `grad` (1 where it is null), scale
// and factor; and, where they are wanted, each block's statistics.
at::Tensor dense_box_pass(
    const at::Tensor& anchors, at::TensorList deltas, at::TensorList gradients,
    const at::Tensor& gt_boxes, const at::Tensor& labels_, std::optional<int64_t> num_classes,
    c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps,
    const DenseShape& shape, const at::Tensor* grad, const double* scale, double factor,
    bool with_parts) {
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  check_indices(shape);
  at::Tensor parts;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto run = [&](const auto& losses) {
          using Loss = std::decay_t<decltype(losses.loss)>;
          DensePass<T, scalar_t, Loss> pass{
              losses,
              make_levels<scalar_t>(gradients, shape),
              !gradients.empty(),
              Zeros::kAnywhere,
              {},
              IsForeground(labels, num_classes),
              {grad ? grad->const_data_ptr<T>() : nullptr, scale, factor},
              nullptr};
          parts = launch_pass(pass, deltas.size(), shape.images, with_parts, deltas[0]);
        };
        with_anchor_losses<scalar_t>(
            anchors, deltas, gt_boxes, kind, box_weights, beta, eps, shape, run);
      });
  return parts;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> loss_and_gradients(
    const at::Tensor& anchors, at::TensorList deltas, bool with_gradients,
    const at::Tensor& gt_boxes, const at::Tensor& labels, std::optional<int64_t> num_classes,
    c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale_, double factor) {
  const DenseShape shape =
      check_dense(anchors, deltas, gt_boxes, labels, num_classes, box_weights, scale_);
  const c10::cuda::CUDAGuard guard(labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  std::vector<at::Tensor> gradients;
  if (with_gradients) {
    gradients = empty_like(deltas);
  }
  const at::Tensor parts = dense_box_pass(
      anchors, deltas, gradients, gt_boxes, labels, num_classes, kind, box_weights, beta, eps,
      shape, nullptr, pointer(scale), factor, true);
  auto [loss, values] = total_of(parts, deltas[0], pointer(scale), factor);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cuda(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  auto [loss, values, none] = loss_and_gradients(
      anchors, deltas, false, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale,
      factor);
  return {std::move(loss), std::move(values)};
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> dense_box_loss_ahead_cuda(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& labels, std::optional<int64_t> num_classes, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  return loss_and_gradients(
      anchors, deltas, true, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, scale,
      factor);
}

std::vector<at::Tensor> dense_box_loss_backward_cuda(
    const at::Tensor& grad, const at::Tensor& anchors, at::TensorList deltas,
    const at::Tensor& gt_boxes, const at::Tensor& labels, std::optional<int64_t> num_classes,
    c10::string_view kind, at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale_, double factor) {
  const DenseShape shape =
      check_dense(anchors, deltas, gt_boxes, labels, num_classes, box_weights, scale_);
  check_grad(grad, {}, reduced_dtype(deltas[0]), deltas[0]);
  const c10::cuda::CUDAGuard guard(labels.device());
  const std::optional<at::Tensor> scale = scale_on_device(scale_);
  std::vector<at::Tensor> result = empty_like(deltas);
  dense_box_pass(
      anchors, deltas, result, gt_boxes, labels, num_classes, kind, box_weights, beta, eps, shape,
      &grad, pointer(scale), factor, false);
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CUDA, m) {
  m.impl("dense_box_loss", &dense_box_loss_cuda);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cuda);
  m.impl("_dense_box_loss_ahead", &dense_box_loss_ahead_cuda);
}

}  // namespace
}  // namespace alwa_d2
