"""Labels of anchors by a matcher of Detectron2's."""

from detectron2.modeling.matcher import Matcher
from detectron2.structures import Instances
from torch import Tensor

from ..layers import label_anchors


def labels_by(
    matcher: Matcher,
    anchors: Tensor,
    gt_instances: list[Instances],
    background: int,
    foreground: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    :func:`alwa_d2.layers.label_anchors`, (N, R), (N, R, 4) and (), by the rule of `matcher`.

    With `foreground` the instances need no classes; those of -1 are padding all the same.
    """
    has_classes = all(instances.has("gt_classes") for instances in gt_instances)
    without_classes = foreground is not None and not has_classes
    return label_anchors(
        anchors,
        [instances.gt_boxes.tensor for instances in gt_instances],
        None if without_classes else [instances.gt_classes for instances in gt_instances],
        thresholds=matcher.thresholds[1:-1],  # it has put infinities at both ends
        labels=matcher.labels,
        allow_low_quality_matches=matcher.allow_low_quality_matches,
        background=background,
        foreground=foreground,
    )
