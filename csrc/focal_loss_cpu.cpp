#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include <atomic>

#include "focal_loss.h"
#include "pieces_cpu.h"

namespace alwa_d2 {
namespace {

// A label outside -1 .. K met by any thread, refused after the pass.
class LabelCheck {
 public:
  explicit LabelCheck(int64_t num_classes) : num_classes_(num_classes), bad_(num_classes) {}

  void see(int64_t label) {
    if (label < -1 || label > num_classes_) {
      bad_.store(label, std::memory_order_relaxed);
    }
  }

  void refuse() const {
    const int64_t bad = bad_.load(std::memory_order_relaxed);
    TORCH_CHECK_VALUE(
        bad == num_classes_, "labels: expected -1 (ignore), 0 to ", num_classes_ - 1,
        " (foreground) or ", num_classes_, " (background), got ", bad);
  }

 private:
  int64_t num_classes_;
  std::atomic<int64_t> bad_;
};

std::tuple<at::Tensor, at::Tensor> sigmoid_focal_loss_cpu(
    at::TensorList logits, const at::Tensor& labels_, double alpha, double gamma,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_focal(logits, labels_, gamma, scale);
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  const int64_t* label_of = labels.const_data_ptr<int64_t>();
  LabelCheck check(shape.values);
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, logits[0].scalar_type(), "sigmoid_focal_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto levels = make_levels<const scalar_t>(logits, shape);
        const Focal<T> focal(alpha, gamma);
        stats = sum_over_pieces(labels.numel(), [&](int64_t begin, int64_t end) {
          Stats part;
          for (int64_t i = begin; i < end; ++i) {
            check.see(label_of[i]);
            if (label_of[i] < 0) {
              continue;
            }
            const int64_t image = i / shape.anchors, r = i % shape.anchors;
            const auto& level = levels.of_anchor(r);
            const scalar_t* x = level.values(image, r);
            T sum = 0;
            for (int64_t k = 0; k < shape.values; ++k) {
              sum += focal.value(static_cast<T>(x[k * level.stride_value]), k == label_of[i]);
            }
            part.add(sum);
          }
          return part;
        });
      });
  check.refuse();
  return scaled_sum(stats, logits[0], scale, factor);
}

std::vector<at::Tensor> sigmoid_focal_loss_backward_cpu(
    const at::Tensor& grad, at::TensorList logits, const at::Tensor& labels_, double alpha,
    double gamma, const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_focal(logits, labels_, gamma, scale);
  check_grad(grad, {}, reduced_dtype(logits[0]), logits[0]);
  const at::Tensor labels = labels_.contiguous();  // (N, R)
  const int64_t* label_of = labels.const_data_ptr<int64_t>();
  std::vector<at::Tensor> result;
  for (const at::Tensor& level : logits) {
    result.push_back(at::empty_like(level));
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, logits[0].scalar_type(), "sigmoid_focal_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto levels = make_levels<const scalar_t>(logits, shape);
        const auto out = make_levels<scalar_t>(result, shape);
        const Focal<T> focal(alpha, gamma);
        const T common = static_cast<T>(grad.item<double>() * scale_value(scale, factor));
        for_each_piece(labels.numel(), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t image = i / shape.anchors, r = i % shape.anchors;
            const auto& level = levels.of_anchor(r);
            const auto& out_level = out.of_anchor(r);
            const scalar_t* x = level.values(image, r);
            scalar_t* dx = out_level.values(image, r);
            for (int64_t k = 0; k < shape.values; ++k) {
              const T derivative = label_of[i] < 0 ? T(0)
                                                   : common *
                      focal.derivative(static_cast<T>(x[k * level.stride_value]), k == label_of[i]);
              dx[k * out_level.stride_value] = static_cast<scalar_t>(derivative);
            }
          }
        });
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("sigmoid_focal_loss", &sigmoid_focal_loss_cpu);
  m.impl("sigmoid_focal_loss_backward", &sigmoid_focal_loss_backward_cpu);
}

}  // namespace
}  // namespace alwa_d2
