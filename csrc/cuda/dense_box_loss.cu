#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "cuda/launch.cuh"

namespace alwa_d2 {
namespace {

// How a level's gradients are filled with zeros.
enum class Zeros { kPlanes, kRows, kAnywhere };

// What a launch works on: a thread looks at the labels of a few anchors, writes the zeros of all
// and the gradients of the foreground among them.
template <typename T, typename scalar_t, typename Loss>
struct DensePass {
  AnchorLosses<T, scalar_t, Loss> losses;
  Levels<scalar_t> out;
  bool with_gradients;  // whether `out` is there
  Zeros zeros;          // planes: a thread has a PlaneShare; otherwise an anchor
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

template <typename T, typename scalar_t, typename Loss>
__global__ void __launch_bounds__(kThreads)
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

  Stats stats;
#pragma unroll 1
  for (int j = 0; j < count; ++j, i += step) {
    if (pass.is_foreground(i)) {
      const PairLoss<T> loss = pass.losses(i);
      stats.add(loss.value);
      if (pass.with_gradients) {
        pass.losses.store_gradient(i, loss, pass.common(), pass.out);
      }
    }
  }
  if (pass.parts) {
    if (__syncthreads_or(stats.count > 0)) {
      store_part(stats, pass.parts);
    } else if (threadIdx.x == 0) {
      stats.store(pass.parts + int64_t(blockIdx.x) * Stats::kSize);
    }
  }
}

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
      : all_out(has_aligned_rows<scalar_t>)                                  ? Zeros::kRows
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
