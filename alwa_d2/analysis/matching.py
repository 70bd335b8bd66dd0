"""Detections of an image and its ground truth: which belong together."""

from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances, pairwise_iou

MATCH_IOU = 0.5  # as in AP50


@dataclass(frozen=True)
class Sample:
    """One image; boxes are absolute in the image's own pixels."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8, RGB
    truth: Instances  # gt_boxes (G, 4), gt_classes (G,)
    found: Instances  # pred_boxes (D, 4), scores (D,), pred_classes (D,)


def match(truth: Instances, found: Instances) -> tuple[list[bool], list[bool]]:
    """For each detection whether it is a true positive, for each true box whether it is missed.

    By falling score, a detection takes the box of its class that it overlaps most among those not
    taken yet, if their IoU is at least MATCH_IOU.
    """
    hit, missed = [False] * len(found), [True] * len(truth)
    if not hit or not missed:
        return hit, missed
    iou = pairwise_iou(found.pred_boxes, truth.gt_boxes)  # (D, G)
    iou[found.pred_classes[:, None] != truth.gt_classes[None, :]] = -1.0
    for index in found.scores.argsort(descending=True, stable=True).tolist():
        best = int(iou[index].argmax())
        if iou[index, best] >= MATCH_IOU:
            hit[index], missed[best] = True, False
            iou[:, best] = -1.0
    return hit, missed
