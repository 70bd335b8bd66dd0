#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include <atomic>

#include "cpu/focal_segment.h"
#include "cpu/pieces.h"
#include "focal_loss.h"

namespace alwa_d2 {
namespace {

// One pass over logits of type scalar_t, computed in T: losses, and gradients (times `factor`)
// where there are tensors for them. Long loops take every logit as one of a class that is not its
// anchor's. After them put_right corrects the few logits that are, and ignored anchors.
template <typename scalar_t, typename T>
class FocalPass {
 public:
  FocalPass(
      at::TensorList logits, at::TensorList gradients, const at::Tensor& labels,
      const DenseShape& shape, const Focal<T>& focal, double factor)
      : in_(make_levels<const scalar_t>(logits, shape)),
        out_(make_levels<scalar_t>(gradients, shape)),
        with_gradients_(!gradients.empty()),
        labels_(labels.const_data_ptr<int64_t>()),
        shape_(shape),
        focal_(focal),
        factor_(static_cast<T>(factor)),
        bad_label_(shape.values) {}

  Stats run() {
    const int64_t n = shape_.images * shape_.anchors, size = piece_size(n);
    // A thread takes at least GRAIN_SIZE logits, PyTorch's own measure for elementwise loops: with
    // fewer it may be done before another thread has woken up.
    const int64_t logits_a_piece = size * std::max<int64_t>(shape_.values, 1);
    const int64_t grain = at::internal::GRAIN_SIZE / logits_a_piece + 1;
    const Stats stats = sum_over_pieces(n, size, grain, [&] {
      return [this, scratch = FocalScratch<T>(std::min(n, size), shape_.values)](
                 int64_t begin, int64_t end) mutable { return piece(begin, end, scratch); };
    });
    const int64_t bad = bad_label_.load();
    TORCH_CHECK_VALUE(
        bad == shape_.values, "labels: expected -1 (ignore), 0 to ", shape_.values - 1,
        " (foreground) or ", shape_.values, " (background), got ", bad);
    return stats;
  }

 private:
  Stats piece(int64_t begin, int64_t end, FocalScratch<T>& scratch) {
    const int64_t k = shape_.values;
    scratch.others.resize(end - begin);
    scratch.others.resize(find_others(labels_ + begin, end - begin, k, scratch.others.data()));
    for (int64_t i = begin; i < end;) {
      const int64_t image = i / shape_.anchors, r = i % shape_.anchors;
      const int level = in_.index_of_anchor(r);
      const auto& in = in_.items[level];
      const auto* out = with_gradients_ ? &out_.items[level] : nullptr;
      const int64_t stop = std::min(end, i - r + in.first + in.anchors);
      FocalSegment<scalar_t, T>{focal_, factor_, labels_, k,     in, out,
                                begin,  i,       stop,    image, r,  scratch}
          .run();
      i = stop;
    }
    for (const int32_t other : scratch.others) {
      scratch.losses[other] += put_right(begin + other);
    }
    return stats_of_anchors(scratch.losses.data(), labels_ + begin, end - begin);
  }

  // Returns the loss of an anchor's own class and writes its gradient; for an ignored anchor the
  // loss is 0, and so are all its gradients.
  T put_right(int64_t i) {
    const int64_t image = i / shape_.anchors, r = i % shape_.anchors, label = labels_[i];
    const int level = in_.index_of_anchor(r);
    const auto& in = in_.items[level];
    const auto& out = out_.items[level];
    scalar_t* dx = with_gradients_ ? out.values(image, r) : nullptr;
    if (label < -1 || label > shape_.values) {
      bad_label_.store(label);
      return 0;
    }
    if (label < 0) {
      for (int64_t c = 0; dx && c < shape_.values; ++c) {
        dx[c * out.stride_value] = 0;
      }
      return 0;
    }
    const auto own = focal_(static_cast<T>(in.values(image, r)[label * in.stride_value]), true);
    if (dx) {
      dx[label * out.stride_value] = static_cast<scalar_t>(factor_ * own.slope);
    }
    return own.value;
  }

  Levels<const scalar_t> in_;
  Levels<scalar_t> out_;
  bool with_gradients_;
  const int64_t* labels_;  // (N, R)
  DenseShape shape_;
  Focal<T> focal_;
  T factor_;
  std::atomic<int64_t> bad_label_;  // K where there is none
};

// Statistics, and gradients times `factor` where there are tensors for them.
Stats focal_pass(
    const FocalArguments& args, const DenseShape& shape, at::TensorList gradients, double factor) {
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, args.logits[0].scalar_type(), "sigmoid_focal_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const Focal<T> focal(args.alpha, args.gamma);
        const at::Tensor labels = args.labels.contiguous();
        stats = FocalPass<scalar_t, T>(args.logits, gradients, labels, shape, focal, factor).run();
      });
  return stats;
}

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_cpu(const FocalArguments& args) {
  const DenseShape shape = dense_shape(args.labels, check_focal(args));
  const Stats stats = focal_pass(args, shape, {}, 1);
  return scaled_sum(stats, args.logits[0], scale_value(args.scale, args.factor));
}

std::vector<at::Tensor> sigmoid_focal_loss_backward_cpu(
    const at::Tensor& grad, const FocalArguments& args) {
  const DenseShape shape = dense_shape(args.labels, check_focal(args));
  check_focal_grad(grad, args);
  std::vector<at::Tensor> result = empty_like(args.logits);
  focal_pass(args, shape, result, grad.item<double>() * scale_value(args.scale, args.factor));
  return result;
}

std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>> sigmoid_focal_loss_ahead_cpu(
    const FocalArguments& args) {
  const DenseShape shape = dense_shape(args.labels, check_focal(args));
  std::vector<at::Tensor> gradients = empty_like(args.logits);
  const double common = scale_value(args.scale, args.factor);
  const Stats stats = focal_pass(args, shape, gradients, common);
  auto [loss, values] = scaled_sum(stats, args.logits[0], common);
  return {std::move(loss), std::move(values), std::move(gradients)};
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("sigmoid_focal_loss", &FocalEntry::call<&sigmoid_focal_loss_cpu>);
  m.impl(
      "sigmoid_focal_loss_backward", &FocalEntry::call_backward<&sigmoid_focal_loss_backward_cpu>);
  m.impl("_sigmoid_focal_loss_ahead", &FocalEntry::call<&sigmoid_focal_loss_ahead_cpu>);
}

}  // namespace
}  // namespace alwa_d2
