"""Box-regression losses of pairs of boxes."""

import torch
from torch import Tensor

from . import _library

BOX_LOSS_KINDS = ("l1", "smooth_l1", "iou", "giou", "diou", "ciou")


def box_loss(
    pred: Tensor,
    target: Tensor,
    kind: str,
    reduction: str = "none",
    beta: float = 1.0,
    eps: float = 1e-7,
) -> Tensor:
    """
    Loss of each pair of boxes, or its mean or sum.

    Values and gradients are those of fvcore (`giou_loss`, `smooth_l1_loss`) and Detectron2
    (`diou_loss`, `ciou_loss`: alpha is a constant in CIoU's gradient), without their check that
    boxes are valid, which waits for the device. A box whose second corner lies before its first
    counts as empty, at the first corner. Every finite input gives a finite value and gradient for
    `eps` above 0 and coordinates up to 1e4 in float16 (extents 0 or at least 1e-3), 1e18 in float32
    and bfloat16, 1e150 in float64; NaN gives NaN. Papers and formulas are in csrc/losses/.

    Args:
        pred, target: (N, 4). Absolute XYXY boxes (pixels) for iou, giou, diou and ciou; any four
            codes for l1 and smooth_l1, whose losses are summed over the four. float64, float32,
            float16 or bfloat16; two dtypes are promoted to their common one.
        kind: "l1", "smooth_l1", "iou", "giou", "diou" or "ciou"
        reduction: "none", "mean" (over pairs; 0 for no pair) or "sum"
        beta: where smooth_l1 changes from quadratic to linear, in units of the codes, 0 to 1e30;
            1 as in PyTorch (Detectron2's configs set 0 or 0.1); below 1e-5 it is l1. Other kinds do
            not use it.
        eps: added to areas and to the squared diagonal in denominators, 0 to 1e30 (fvcore's
            default)

    Returns:
        (N,) of the inputs' dtype, or 0-dim, float32 (float64 for float64 inputs).

    Raises:
        ValueError: unknown kind or reduction, beta or eps out of range or NaN, shapes or devices
            that differ
        TypeError: a dtype that is not supported
        RuntimeError: the extension is not built; a derivative other than a first one by
            `backward()` or `torch.autograd.grad`: a second one, forward mode (dual tensors, jvp),
            `torch.func` (grad, jacrev, vmap), `is_grads_batched`.
            :mod:`alwa_d2.layers.reference` has the same function in plain PyTorch for these.
    """
    _library.require_ops()
    if pred.dtype != target.dtype:
        dtype = torch.promote_types(pred.dtype, target.dtype)
        pred, target = pred.to(dtype), target.to(dtype)
    return torch.ops.alwa_d2.box_loss(pred, target, kind, reduction, beta, eps)


_library.differentiable_once("box_loss")
