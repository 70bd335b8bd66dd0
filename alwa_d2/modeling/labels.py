"""Labels of anchors by a matcher of Detectron2's."""

from detectron2.modeling.matcher import Matcher
from torch import Tensor

from ..layers import label_anchors


def labels_by(
    matcher: Matcher,
    anchors: Tensor,
    gt_boxes: list[Tensor],
    gt_classes: list[Tensor],
    background: int,
) -> tuple[Tensor, Tensor]:
    """:func:`alwa_d2.layers.label_anchors`, (N, R) and (N, R, 4), by the rule of `matcher`."""
    return label_anchors(
        anchors,
        gt_boxes,
        gt_classes,
        thresholds=matcher.thresholds[1:-1],  # it has put infinities at both ends
        labels=matcher.labels,
        allow_low_quality_matches=matcher.allow_low_quality_matches,
        background=background,
    )
