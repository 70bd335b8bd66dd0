"""What a dense head's losses are multiplied with: weights over the number of foreground anchors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _library


def loss_scales(
    num_foreground: Tensor,
    normalizer: Tensor,
    weights: Sequence[Tensor] = (),
    *,
    momentum: float = 0.9,
    update: bool = True,
) -> Tensor:
    """
    Each weight over the moving average of the number of foreground anchors, and 1 over it.

    With `update` the average moves first, in place: momentum * normalizer + (1 - momentum) *
    max(num_foreground, 1). One kernel; on CUDA nothing waits for the device. What is returned is
    new, so that later updates leave it.

    Args:
        num_foreground: 0-dim int64 or float64 (a mean over processes), of this batch
        normalizer: 0-dim float64, the average; changed in place
        weights: at most 16 detached 0-dim float64 tensors
        momentum: 0 to 1 (Detectron2's default)
        update: whether the average moves

    Returns:
        (len(weights) + 1,) float64

    Raises:
        ValueError: shapes, devices or numbers of tensors that do not fit, momentum out of range, a
            weight that requires grad
        TypeError: a dtype that is not supported
        RuntimeError: the extension is not built; dual tensors, vmap
    """
    _library.require_ops()
    return torch.ops.alwa_d2.loss_scales(
        num_foreground, normalizer, list(weights), momentum, update
    )
