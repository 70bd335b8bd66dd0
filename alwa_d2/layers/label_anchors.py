"""Labels of a dense head's anchors from the ground truth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _library


def label_anchors(
    anchors: Tensor,
    gt_boxes: Sequence[Tensor],
    gt_classes: Sequence[Tensor] | None = None,
    *,
    thresholds: Sequence[float] = (0.4, 0.5),
    labels: Sequence[int] = (0, -1, 1),
    allow_low_quality_matches: bool = True,
    background: int,
    foreground: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Each image's labels of the anchors, the ground-truth boxes matched to them, and how many are
    foreground.

    To the bit what Detectron2's `RetinaNet.label_anchors` makes of its `pairwise_iou` and
    `Matcher`, whose matrix of all ground truths by all anchors is never made. On CUDA nothing
    waits for the device.

    A ground truth of a negative class is padding: it takes part in nothing, so that a fixed number
    of them can be given (:func:`pad_ground_truth`). A box alone never makes it so.

    Args:
        anchors: (R, 4) XYXY, float64 or float32; no NaN
        gt_boxes: (G, 4) XYXY for each of the N images, rounded to the anchors' dtype; G may differ
            and be 0
        gt_classes: (G,) int64 for each image, -1 padding; None only with `foreground`
        thresholds: one to eight IoUs in ascending order, greater than 0, that part the anchors by
            their highest IoU; one on a threshold belongs above it (RetinaNet's default)
        labels: one more than thresholds, for the parts from the lowest to the highest: 1 the
            matched box's class, 0 background, -1 ignore (RetinaNet's default)
        allow_low_quality_matches: for each ground truth, the anchors that overlap it most count as
            1 whatever their IoU; where nothing overlaps it, all anchors do (RetinaNet's default)
        background: label of background anchors, and of all anchors of an image without ground truth
        foreground: label of foreground anchors in place of their box's class, as an RPN has it

    Returns:
        labels: (N, R) int64
        boxes: (N, R, 4) in the anchors' dtype: of each anchor, whatever its label, the ground truth
            with the highest IoU, of several the first; 0 in an image without ground truth
        num_foreground: 0-dim int64, the anchors of all images that count as 1, but for those whose
            box has the class `background`. No output has a gradient, as if the inputs were
            detached.

    Raises:
        ValueError: shapes, devices or numbers of tensors that do not fit, thresholds or labels out
            of range
        TypeError: a dtype that is not supported
        RuntimeError: the extension is not built; dual tensors (forward mode, which is not just
            left out as gradients are), vmap
    """
    _library.require_ops()
    return torch.ops.alwa_d2.label_anchors(
        anchors,
        list(gt_boxes),
        [] if gt_classes is None else list(gt_classes),
        list(thresholds),
        list(labels),
        allow_low_quality_matches,
        background,
        foreground,
    )


def pad_ground_truth(boxes: Tensor, classes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """
    An image's ground truth with padding up to a fixed number, for CUDA graphs, whose tensors keep
    their shapes: labels and boxes are those without padding, to the bit.

    Args:
        boxes: (G, 4)
        classes: (G,) int64
        size: at least G

    Returns:
        (size, 4) and (size,), new: after the ground truth boxes of 0 and the class -1

    Raises:
        ValueError: more boxes than `size`, or not as many classes as boxes
    """
    count = len(boxes)
    if count > size:
        raise ValueError(f"boxes: expected at most size = {size}, got {count}")
    if classes.shape != (count,):
        raise ValueError(f"classes: expected shape [{count}], got {list(classes.shape)}")
    padded_boxes, padded_classes = boxes.new_zeros(size, 4), classes.new_full((size,), -1)
    padded_boxes[:count] = boxes
    padded_classes[:count] = classes
    return padded_boxes, padded_classes
