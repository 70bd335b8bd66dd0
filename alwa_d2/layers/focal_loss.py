"""Sigmoid focal loss from integer labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _library
from .loss_stats import LossStats, as_levels, split_scale


def dense_focal_loss(
    logits: Tensor | Sequence[Tensor],
    labels: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    scale: float | Tensor | None = None,
) -> tuple[Tensor, LossStats]:
    """
    Sum of the focal losses of all anchors that are not ignored, and their statistics.

    Equal to the sum of fvcore's `sigmoid_focal_loss` on the one-hot targets, which are never made.
    The formula and its paper are in csrc/losses/focal.h. It is also importable as
    `sigmoid_focal_loss`, its name before; unlike fvcore's and torchvision's function of that name
    it takes the numbers of classes.

    Args:
        logits: (N, R, K), or a list with a tensor for each level: the head's outputs as they are,
            (N, A * K, H, W) in any memory format, whose anchors are counted in the order
            (level, H, W, A); or (N, HWA, K), as Detectron2 makes of them. Also (R, K). float64,
            float32, float16 or bfloat16
        labels: (N, R), with (R, K) logits (R,), int64: -1 ignore, 0 to K - 1 foreground, K
            background. On the CPU any other is refused, on CUDA it stops the program as a
            device-side assertion.
        alpha: weight of an anchor's own class, 0 to 1, with 1 - alpha for the others; -1: no
            weights (RetinaNet's default)
        gamma: exponent of the modulating factor, 0 to 1e30 (RetinaNet's default)
        scale: multiplies loss and gradient, not the statistics; a number or a detached 0-dim
            tensor on the same device

    Returns:
        loss: 0-dim, float32 (float64 for float64 logits); 0 without valid anchors
        stats: of the unscaled losses of the valid anchors, each summed over the classes

    Raises:
        ValueError: shapes or devices that do not fit, a label, alpha or gamma out of range or NaN,
            `scale` that requires grad
        TypeError: a dtype that is not supported
        RuntimeError: as :func:`box_loss`
    """
    _library.require_ops()
    if isinstance(logits, Tensor) and logits.dim() == 2 and labels.dim() == 1:
        logits, labels = logits[None], labels[None]
    scale, factor = split_scale(scale)
    loss, stats = torch.ops.alwa_d2.sigmoid_focal_loss(
        as_levels(logits), labels, alpha, gamma, scale, factor
    )
    return loss, LossStats(stats)


# The name of earlier versions, and of the op: programs and traces that were saved keep it.
sigmoid_focal_loss = dense_focal_loss

_library.differentiable_once("sigmoid_focal_loss")
