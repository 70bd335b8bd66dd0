"""Box-regression losses of a dense head's foreground anchors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _library
from .loss_stats import LossStats, as_levels, split_scale


def dense_box_loss(
    anchors: Tensor,
    deltas: Tensor | Sequence[Tensor],
    gt_boxes: Tensor,
    labels: Tensor,
    kind: str,
    *,
    num_classes: int | None = None,
    box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    beta: float = 1.0,
    eps: float = 1e-7,
    scale: float | Tensor | None = None,
) -> tuple[Tensor, LossStats]:
    """
    Sum of the box losses of a dense head's foreground anchors, and their statistics.

    Equal to Detectron2's `_dense_box_regression_loss`, scale clamp log(1000 / 16) included, to
    rounding; background anchors are not decoded. Gradients flow to `deltas` alone.

    Args:
        anchors: (R, 4) XYXY, pixels, of positive extents
        deltas: (N, R, 4), or a list with a tensor for each level: the head's outputs as they are,
            (N, A * 4, H, W) in any memory format, whose anchors are counted in the order
            (level, H, W, A); or (N, HWA, 4), as Detectron2 makes of them
        gt_boxes: (N, R, 4) XYXY, pixels: the box matched with each anchor; any value in background
        labels: (N, R) int64 as :func:`dense_focal_loss` takes them, 0 to num_classes - 1
            foreground and any other number not; or a bool mask of the foreground
        kind, beta, eps: see :func:`box_loss`; l1 and smooth_l1 compare deltas, the others boxes,
            whose limits are those of coordinates there
        num_classes: the number of classes with labels, None with a mask
        box_weights: positive weights of (dx, dy, dw, dh), as in Detectron2's `Box2BoxTransform`
        scale: multiplies loss and gradient, not the statistics; a number or a detached 0-dim
            tensor on the same device

    Returns:
        loss: 0-dim, float32 (float64 for float64 deltas); 0 without foreground
        stats: of the unscaled per-anchor losses

    Raises:
        ValueError, TypeError, RuntimeError: as :func:`box_loss`; `scale` that requires grad
    """
    _library.require_ops()
    scale, factor = split_scale(scale)
    loss, stats = torch.ops.alwa_d2.dense_box_loss(
        anchors, as_levels(deltas), gt_boxes, labels, num_classes, kind, list(box_weights), beta,
        eps, scale, factor,
    )  # fmt: skip
    return loss, LossStats(stats)


_library.differentiable_once("dense_box_loss")
