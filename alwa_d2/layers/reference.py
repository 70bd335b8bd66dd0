"""The ops of this package in plain PyTorch: the definition of correct.

Each function has the signature and the result of its namesake in :mod:`alwa_d2.layers`; gradients
come from autograd, of any order and in forward mode too. Nothing falls back to these by itself:
they are slow, use much memory and check no arguments.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .loss_stats import LossStats, as_levels, reduced_dtype, split_scale

SCALE_CLAMP = math.log(1000.0 / 16)
Levels = Tensor | Sequence[Tensor]


def box_loss(
    pred: Tensor, target: Tensor, kind: str, reduction: str = "none", beta: float = 1.0,
    eps: float = 1e-7,
) -> Tensor:  # fmt: skip
    dtype = torch.promote_types(pred.dtype, target.dtype)
    compute = reduced_dtype(pred.to(dtype))
    losses = _pair_losses(pred.to(compute), target.to(compute), kind, beta, eps)
    if reduction == "none":
        # A finite loss outside the range of the dtype becomes the largest number within it.
        largest = torch.finfo(dtype).max
        return torch.where(losses.isfinite(), losses.clamp(-largest, largest), losses).to(dtype)
    total = losses.sum()
    return total / max(len(losses), 1) if reduction == "mean" else total


def dense_box_loss(
    anchors: Tensor, deltas: Levels, gt_boxes: Tensor, labels: Tensor, kind: str, *,
    num_classes: int | None = None, box_weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    beta: float = 1.0, eps: float = 1e-7, scale: float | Tensor | None = None,
) -> tuple[Tensor, LossStats]:  # fmt: skip
    fg_mask = labels if num_classes is None else (labels >= 0) & (labels < num_classes)  # (N, R)
    deltas = _flat(deltas, fg_mask.shape[1])
    compute = reduced_dtype(deltas)
    deltas = deltas.to(compute)[fg_mask]  # (P, 4)
    gt_boxes = gt_boxes.to(compute)[fg_mask]
    anchors = anchors.to(compute).expand_as(fg_mask.unsqueeze(-1).expand(-1, -1, 4))[fg_mask]
    weights = deltas.new_tensor(box_weights)
    if kind in ("l1", "smooth_l1"):
        losses = _pair_losses(deltas, _encode(anchors, gt_boxes, weights), kind, beta, eps)
    else:
        losses = _pair_losses(_decode(anchors, deltas, weights), gt_boxes, kind, beta, eps)
    return _scaled_sum(losses, scale)


def dense_focal_loss(
    logits: Levels, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0,
    scale: float | Tensor | None = None,
) -> tuple[Tensor, LossStats]:  # fmt: skip
    if isinstance(logits, Tensor) and logits.dim() == 2:
        logits, labels = logits[None], labels[None]
    logits = _flat(logits, labels.shape[1])
    num_classes = logits.shape[-1]
    valid = labels >= 0
    logits = logits.to(reduced_dtype(logits))[valid]  # (V, K)
    classes = torch.arange(num_classes, device=labels.device)
    own = labels[valid].unsqueeze(-1) == classes  # (V, K) bool

    z = torch.where(own, -logits, logits)
    losses = z.sigmoid() ** gamma * torch.nn.functional.softplus(z, threshold=math.inf)
    if alpha >= 0:
        losses = torch.where(own, alpha * losses, (1 - alpha) * losses)
    return _scaled_sum(losses.sum(-1), scale)


sigmoid_focal_loss = dense_focal_loss


@torch.no_grad()
def label_anchors(
    anchors: Tensor, gt_boxes: Sequence[Tensor], gt_classes: Sequence[Tensor] | None = None, *,
    thresholds: Sequence[float] = (0.4, 0.5), labels: Sequence[int] = (0, -1, 1),
    allow_low_quality_matches: bool = True, background: int, foreground: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    n, r = len(gt_boxes), len(anchors)
    out_labels = torch.full((n, r), background, device=anchors.device)
    out_boxes = anchors.new_zeros(n, r, 4)
    num_foreground = torch.zeros((), dtype=torch.int64, device=anchors.device)
    for i, boxes in enumerate(gt_boxes):
        classes = gt_classes[i] if gt_classes else torch.zeros_like(boxes[:, 0], dtype=torch.int64)
        boxes, classes = boxes[classes >= 0].to(anchors.dtype), classes[classes >= 0]
        if len(boxes) == 0 or r == 0:
            continue
        iou = _pairwise_iou(boxes, anchors)  # (G, R)
        highest, index = iou.max(dim=0)  # (R,)
        part = (highest[:, None] >= highest.new_tensor(thresholds)).sum(dim=1)
        match = torch.tensor(labels, device=anchors.device)[part]
        if allow_low_quality_matches:
            match[(iou == iou.amax(dim=1, keepdim=True)).any(dim=0)] = 1
        own = classes[index] if foreground is None else foreground
        out_labels[i] = torch.where(match == 0, background, torch.where(match == 1, own, -1))
        out_boxes[i] = boxes[index]
        num_foreground += ((match == 1) & (out_labels[i] != background)).sum()
    return out_labels, out_boxes, num_foreground


@torch.no_grad()
def loss_scales(
    num_foreground: Tensor, normalizer: Tensor, weights: Sequence[Tensor] = (), *,
    momentum: float = 0.9, update: bool = True,
) -> Tensor:  # fmt: skip
    if update:
        normalizer.mul_(momentum).add_(num_foreground.clamp(min=1), alpha=1 - momentum)
    return torch.stack([*weights, torch.ones_like(normalizer)]) / normalizer


def stats_of(losses: Tensor) -> LossStats:
    """Statistics of (P,) losses."""
    x = losses.detach().double()
    empty = x.new_tensor([math.inf, -math.inf])
    ends = torch.stack([x.min(), x.max()]) if len(x) else empty
    sums = torch.stack([x.new_tensor(len(x)), x.sum(), x.square().sum()])
    return LossStats(torch.cat([sums, ends]))


def _scaled_sum(losses: Tensor, scale: float | Tensor | None) -> tuple[Tensor, LossStats]:
    scale, factor = split_scale(scale)
    total = losses.sum() * factor
    return total if scale is None else (total * scale).to(total.dtype), stats_of(losses)


def _flat(x: Levels, num_anchors: int) -> Tensor:
    """(N, R, K) from levels: (N, HWA, K), or (N, A * K, H, W) in the order (level, H, W, A)."""
    levels = as_levels(x)
    if levels[0].dim() == 3:
        return torch.cat(levels, dim=1)
    positions = sum(level.shape[2] * level.shape[3] for level in levels)
    per_position = num_anchors // max(positions, 1)
    flat = []
    for level in levels:
        n, channels, h, w = level.shape
        values = channels // max(per_position, 1)
        level = level.view(n, per_position, values, h, w).permute(0, 3, 4, 1, 2)
        flat.append(level.reshape(n, h * w * per_position, values))
    return torch.cat(flat, dim=1)


def _pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(P, Q) IoUs of (P, 4) with (Q, 4) boxes, each operation rounded; 0 without overlap."""
    first = torch.maximum(boxes[:, None, :2], others[:, :2])
    second = torch.minimum(boxes[:, None, 2:], others[:, 2:])
    inter = (second - first).clamp(min=0).prod(dim=2)
    area, other_area = ((x[:, 2:] - x[:, :2]).prod(dim=1) for x in (boxes, others))
    return torch.where(inter > 0, inter / (area[:, None] + other_area - inter), 0)


def _decode(anchors: Tensor, deltas: Tensor, weights: Tensor) -> Tensor:
    """XYXY boxes (P, 4) from deltas, as Detectron2's `Box2BoxTransform.apply_deltas`."""
    extents = anchors[:, 2:] - anchors[:, :2]
    shift, size = (deltas / weights).split(2, dim=1)
    centres = shift * extents + (anchors[:, :2] + 0.5 * extents)
    half = 0.5 * size.clamp(max=SCALE_CLAMP).exp() * extents
    return torch.cat([centres - half, centres + half], dim=1)


def _encode(anchors: Tensor, boxes: Tensor, weights: Tensor) -> Tensor:
    """Deltas (P, 4) from XYXY boxes; extents of 0 count as the smallest normal number."""
    extents = anchors[:, 2:] - anchors[:, :2]
    target = boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + 0.5 * target) - (anchors[:, :2] + 0.5 * extents)
    ratio = (target / extents).clamp(min=torch.finfo(boxes.dtype).tiny)
    return torch.cat([shift / extents, ratio.log()], dim=1) * weights


def _pair_losses(pred: Tensor, target: Tensor, kind: str, beta: float, eps: float) -> Tensor:
    if kind in ("l1", "smooth_l1"):
        return _smooth_l1(pred, target, beta if kind == "smooth_l1" else 0.0)
    (x1, y1, x2, y2), (x1t, y1t, x2t, y2t) = _corners(pred), _corners(target)
    w, h, wt, ht = x2 - x1, y2 - y1, x2t - x1t, y2t - y1t

    # Boxes that touch do not overlap, and have no gradient there.
    wi = torch.minimum(x2, x2t) - torch.maximum(x1, x1t)
    hi = torch.minimum(y2, y2t) - torch.maximum(y1, y1t)
    intersection = torch.where((wi <= 0) | (hi <= 0), 0, wi * hi)
    union = w * h + wt * ht - intersection
    iou = intersection / (union + eps)
    if kind == "iou":
        return 1 - iou

    wc = torch.maximum(x2, x2t) - torch.minimum(x1, x1t)
    hc = torch.maximum(y2, y2t) - torch.minimum(y1, y1t)
    if kind == "giou":
        return 1 - iou + (wc * hc - union) / (wc * hc + eps)

    dx, dy = (x1 + x2) / 2 - (x1t + x2t) / 2, (y1 + y2) / 2 - (y1t + y2t) / 2
    distance = (dx**2 + dy**2) / (wc**2 + hc**2 + eps)
    if kind == "diou":
        return 1 - iou + distance

    v = 4 / math.pi**2 * (_angle(wt, ht) - _angle(w, h)) ** 2
    alpha = (v / ((1 - iou).clamp(min=0) + v + eps)).detach()
    return 1 - iou + distance + alpha * v


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x1, y1, x2, y2, the second corner moved to the first where it lies before it."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return x1, y1, torch.where(x2 < x1, x1, x2), torch.where(y2 < y1, y1, y2)


def _angle(w: Tensor, h: Tensor) -> Tensor:
    """atan2(w, h), with gradient 0 at w = h = 0."""
    empty = (w == 0) & (h == 0)
    return torch.atan2(torch.where(empty, 0, w), torch.where(empty, 1, h))


def _smooth_l1(pred: Tensor, target: Tensor, beta: float) -> Tensor:
    n = (pred - target).abs()
    if beta < 1e-5:
        return n.sum(-1)
    return torch.where(n < beta, 0.5 * n**2 / beta, n - 0.5 * beta).sum(-1)
