"""Labels of a dense head's anchors from the ground truth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _checks, _library


def label_anchors(
    anchors: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor],
    *,
    thresholds: Sequence[float] = (0.4, 0.5),
    labels: Sequence[int] = (0, -1, 1),
    allow_low_quality_matches: bool = True,
    background: int,
) -> tuple[Tensor, Tensor]:
    """
    Each image's labels of the anchors, and the ground-truth boxes matched to them.

    To the bit what Detectron2's `RetinaNet.label_anchors` makes of its `pairwise_iou` and
    `Matcher`, whose matrix of all ground truths by all anchors is never made. On CUDA nothing
    waits for the device.

    Args:
        anchors: (R, 4) XYXY, float64 or float32; no NaN
        gt_boxes: (G, 4) XYXY for each of the N images, rounded to the anchors' dtype; G may differ
            and be 0
        gt_classes: (G,) int64 for each image
        thresholds: one to eight IoUs in ascending order, greater than 0, that part the anchors by
            their highest IoU; one on a threshold belongs above it (RetinaNet's default)
        labels: one more than thresholds, for the parts from the lowest to the highest: 1 the
            matched box's class, 0 background, -1 ignore (RetinaNet's default)
        allow_low_quality_matches: for each ground truth, the anchors that overlap it most count as
            1 whatever their IoU; where nothing overlaps it, all anchors do (RetinaNet's default)
        background: label of background anchors, and of all anchors of an image without ground truth

    Returns:
        labels: (N, R) int64
        boxes: (N, R, 4) in the anchors' dtype: of each anchor, whatever its label, the ground truth
            with the highest IoU, of several the first; 0 in an image without ground truth. Neither
            output has a gradient.

    Raises:
        ValueError: shapes, devices or numbers of tensors that do not fit, thresholds or labels out
            of range
        TypeError: a dtype that is not supported
        RuntimeError: the extension is not built
    """
    _library.require_ops()
    return torch.ops.alwa_d2.label_anchors(
        anchors,
        list(gt_boxes),
        list(gt_classes),
        list(thresholds),
        list(labels),
        allow_low_quality_matches,
        background,
    )[:2]


def _fake(anchors, gt_boxes, gt_classes, thresholds, labels, allow_low_quality_matches, background, foreground=None):
    _checks.check_label_anchors(anchors, gt_boxes, gt_classes, thresholds, labels)
    shape = (len(gt_boxes), len(anchors))
    return anchors.new_empty(shape, dtype=torch.int64), anchors.new_empty((*shape, 4)), anchors.new_empty((), dtype=torch.int64)


_library.register("label_anchors", fake=(_fake,))
