#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <torch/library.h>

#include "box_loss.h"
#include "pieces_cpu.h"

namespace alwa_d2 {
namespace {

// Calls visit(anchor_loss, values of the anchor's deltas, image, r) for the foreground among
// anchors [begin, end), counted over all images.
template <typename T, typename scalar_t, typename Loss, typename Visit>
void for_each_foreground(
    const Loss& loss, const BoxTransform<T>& transform, const Levels<scalar_t>& deltas,
    const T* anchors, const T* gt_boxes, const bool* fg_mask, int64_t anchors_per_image,
    int64_t begin, int64_t end, const Visit& visit) {
  for (int64_t i = begin; i < end; ++i) {
    if (fg_mask[i]) {
      const int64_t image = i / anchors_per_image, r = i % anchors_per_image;
      const Level<scalar_t>& level = deltas.of_anchor(r);
      T delta[4];
      load(level.values(image, r), level.stride_value, delta);
      visit(anchor_loss(loss, transform, anchors + 4 * r, delta, gt_boxes + 4 * i), image, r);
    }
  }
}

std::tuple<at::Tensor, at::Tensor> dense_box_loss_cpu(
    const at::Tensor& anchors, at::TensorList deltas, const at::Tensor& gt_boxes,
    const at::Tensor& fg_mask, c10::string_view kind, at::ArrayRef<double> box_weights, double beta,
    double eps, const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  const at::Tensor mask = fg_mask.contiguous();  // (N, R)
  Stats stats;
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto dtype = c10::CppTypeToScalarType<T>::value;
        const at::Tensor a = anchors.to(dtype).contiguous();    // (R, 4)
        const at::Tensor gt = gt_boxes.to(dtype).contiguous();  // (N, R, 4)
        const auto levels = make_levels<const scalar_t>(deltas, shape);
        const auto transform = make_transform<T>(box_weights);
        with_kind<T>(kind, beta, eps, [&](auto loss) {
          stats = sum_over_pieces(mask.numel(), [&](int64_t begin, int64_t end) {
            Stats part;
            for_each_foreground(
                loss, transform, levels, a.const_data_ptr<T>(), gt.const_data_ptr<T>(),
                mask.const_data_ptr<bool>(), shape.anchors, begin, end,
                [&](const PairLoss<T>& pair, int64_t, int64_t) { part.add(pair.value); });
            return part;
          });
        });
      });
  return scaled_sum(stats, deltas[0], scale, factor);
}

std::vector<at::Tensor> dense_box_loss_backward_cpu(
    const at::Tensor& grad, const at::Tensor& anchors, at::TensorList deltas,
    const at::Tensor& gt_boxes, const at::Tensor& fg_mask, c10::string_view kind,
    at::ArrayRef<double> box_weights, double beta, double eps,
    const std::optional<at::Tensor>& scale, double factor) {
  const DenseShape shape = check_dense(anchors, deltas, gt_boxes, fg_mask, box_weights, scale);
  check_grad(grad, {}, reduced_dtype(deltas[0]), deltas[0]);
  const at::Tensor mask = fg_mask.contiguous();  // (N, R)
  std::vector<at::Tensor> result;
  for (const at::Tensor& level : deltas) {
    result.push_back(at::zeros_like(level));
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, deltas[0].scalar_type(), "dense_box_loss_backward", [&] {
        using T = at::opmath_type<scalar_t>;
        const auto dtype = c10::CppTypeToScalarType<T>::value;
        const at::Tensor a = anchors.to(dtype).contiguous();    // (R, 4)
        const at::Tensor gt = gt_boxes.to(dtype).contiguous();  // (N, R, 4)
        const auto levels = make_levels<const scalar_t>(deltas, shape);
        const auto out = make_levels<scalar_t>(result, shape);
        const auto transform = make_transform<T>(box_weights);
        const T common = static_cast<T>(grad.item<double>() * scale_value(scale, factor));
        with_kind<T>(kind, beta, eps, [&](auto loss) {
          for_each_piece(mask.numel(), [&](int64_t begin, int64_t end) {
            for_each_foreground(
                loss, transform, levels, a.const_data_ptr<T>(), gt.const_data_ptr<T>(),
                mask.const_data_ptr<bool>(), shape.anchors, begin, end,
                [&](const PairLoss<T>& pair, int64_t image, int64_t r) {
                  const Level<scalar_t>& level = out.of_anchor(r);
                  scalar_t* values = level.values(image, r);
                  for (int j = 0; j < 4; ++j) {
                    values[j * level.stride_value] = static_cast<scalar_t>(common * pair.grad[j]);
                  }
                });
          });
        });
      });
  return result;
}

TORCH_LIBRARY_IMPL(alwa_d2, CPU, m) {
  m.impl("dense_box_loss", &dense_box_loss_cpu);
  m.impl("dense_box_loss_backward", &dense_box_loss_backward_cpu);
}

}  // namespace
}  // namespace alwa_d2
