#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>

#include "box_loss.h"
#include "cpu/foreground.h"
#include "cpu/pieces.h"

namespace alwa_d2 {
namespace {

// Sets the i-th of n parts of each tensor's memory to 0. The tensors are new: their elements fill
// their memory.
void zero_part(at::TensorList tensors, int64_t i, int64_t n) {
  for (const at::Tensor& x : tensors) {
    const int64_t size = x.numel(), begin = size * i / n, end = size * (i + 1) / n;
    const int64_t bytes = static_cast<int64_t>(x.element_size());
    std::memset(static_cast<char*>(x.data_ptr()) + begin * bytes, 0, (end - begin) * bytes);
  }
}

// Brings near what the loss of an anchor reads, which may lie anywhere. It is called for all
// foreground of a piece before the first loss is computed.
template <typename Losses>
void prefetch(const Losses& losses, int64_t i) {
  const int64_t image = i / losses.anchors_per_image, r = i % losses.anchors_per_image;
  const auto& level = losses.deltas.of_anchor(r);
  const auto* values = level.values(image, r);
  for (int64_t j = 0; j < 4; ++j) {
    __builtin_prefetch(values + j * level.stride_value);
  }
  __builtin_prefetch(losses.anchors + 4 * r);
  __builtin_prefetch(losses.gt_boxes + 4 * i);
}

template <typename T>
struct Found {
  int64_t anchor;
  PairLoss<T> loss;
};

// One pass over the foreground: statistics, and gradients times `factor` where there are tensors
// for them. With its labels a piece writes its share of the zeros, which need not be its own
// anchors'. So gradients, which are few, are stored when all pieces are done.
template <typename scalar_t, typename Losses, typename T = at::opmath_type<scalar_t>>
Stats foreground_pass(
    const Losses& losses, const IsForeground& is_foreground, int64_t n, at::TensorList gradients,
    const Levels<scalar_t>& out, T factor) {
  const int64_t size = piece_size(n), pieces = (n + size - 1) / size;
  std::vector<std::vector<Found<T>>> found(gradients.empty() ? 0 : pieces);
  std::atomic<int64_t> total = 0;
  const auto piece = [&](int64_t begin, int64_t end) {
    const int64_t i = begin / size;
    int32_t indices[kLongestPiece];
    const int64_t count = find_foreground(is_foreground, begin, end, indices);
    if (!gradients.empty()) {
      zero_part(gradients, i, pieces);
      found[i].reserve(count);
      total += count;
    }
    for (int64_t j = 0; j < count; ++j) {
      prefetch(losses, begin + indices[j]);
    }
    Stats part;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t anchor = begin + indices[j];
      const PairLoss<T> loss = losses(anchor);
      part.add(loss.value);
      if (!gradients.empty()) {
        found[i].push_back({anchor, loss});
      }
    }
    return part;
  };
  // A thread takes at least this many anchors, PyTorch's own measure for elementwise loops: with
  // fewer it may be done before another thread has woken up.
  constexpr int64_t kGrain = at::internal::GRAIN_SIZE;
  const Stats stats = sum_over_pieces(n, size, kGrain / size, [&] { return std::cref(piece); });
  // Storing the four numbers of a gradient, scattered in memory, counts as 8 steps of such a loop.
  const int64_t grain = kGrain / 8 * pieces / std::max<int64_t>(total, 1) + 1;
  at::parallel_for(0, static_cast<int64_t>(found.size()), grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (const Found<T>& one : found[i]) {
        losses.store_gradient(one.anchor, one.loss, factor, out);
      }
    }
  });
  return stats;
}

// Statistics, and gradients times `factor` where there are tensors for them.
Stats dense_box_pass(const DenseBoxArguments& args, at::TensorList gradients, double factor) {
  const at::Tensor labels = args.labels.contiguous();  // (N, R)
  const DenseShape shape = dense_shape(labels, 4);
  const IsForeground is_foreground(labels, args.num_classes);
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, args.deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto out = make_levels<scalar_t>(gradients, shape);
        with_anchor_losses<scalar_t>(args, shape, [&](const auto& losses) {
          stats = foreground_pass(
              losses, is_foreground, labels.numel(), gradients, out, static_cast<T>(factor));
        });
      });
  return stats;
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cpu(const DenseBoxArguments& args) {
  check_dense_box(args);
  const Stats stats = dense_box_pass(args, {}, 1);
  return scaled_sum(stats, args.deltas[0], scale_value(args.scale, args.factor));
}

std::vector<at::Tensor> dense_box_loss_backward_cpu(
    const at::Tensor& grad, const DenseBoxArguments& args) {
  check_dense_box(args);
  check_dense_box_grad(grad, args);
  std::vector<at::Tensor> result = empty_like(args.deltas);
  dense_box_pass(args, result, grad.item<double>() * scale_value(args.scale, args.factor));
  return result;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> dense_box_loss_ahead_cpu(
    const DenseBoxArguments& args) {
  check_dense_box(args);
  std::vector<at::Tensor> gradients = empty_like(args.deltas);
  const double common = scale_value(args.scale, args.factor);
  const Stats stats = dense_box_pass(args, gradients, common);
  auto [loss, values] = scaled_sum(stats, args.deltas[0], common);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("dense_box_loss", &DenseBoxEntry::call<&dense_box_loss_cpu>);
  m.impl("dense_box_loss_backward", &DenseBoxEntry::call_backward<&dense_box_loss_backward_cpu>);
  m.impl("_dense_box_loss_ahead", &DenseBoxEntry::call<&dense_box_loss_ahead_cpu>);
}

}  // namespace
}  // namespace alwa_d2
