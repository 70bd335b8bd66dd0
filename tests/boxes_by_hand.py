"""Detections and ground truth made by hand, in an image of 160 x 100 pixels."""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from alwa_d2.analysis.matching import Sample

A, B = [10, 10, 30, 30], [60, 10, 80, 30]
ELSEWHERE = [100, 50, 120, 70]


def instances(boxes, classes, scores=None, size=(100, 160)):
    """Ground truth, or detections if there are scores."""
    boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    classes = torch.tensor(classes, dtype=torch.int64)
    if scores is None:
        return Instances(size, gt_boxes=boxes, gt_classes=classes)
    return Instances(size, pred_boxes=boxes, pred_classes=classes, scores=torch.tensor(scores))


def pixels_of(sheet, colour):
    """Number of pixels of exactly this colour."""
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def two_runs():
    """Two images of each run, four boxes: A finds all by 0.6, B two of them at 0.5."""
    grey = np.full((100, 160, 3), 127, np.uint8)
    truth = instances([A, B], [0, 1])

    def sample(name, boxes, classes, scores):
        return Sample(name, grey, truth, instances(boxes, classes, scores))

    first = [
        sample("1", [A, B, ELSEWHERE], [0, 1, 0], [0.9, 0.8, 0.3]),
        sample("2", [A, B], [0, 1], [0.7, 0.6]),
    ]
    second = [
        sample("1", [A, ELSEWHERE, B], [0, 0, 0], [0.9, 0.8, 0.7]),  # B's class is wrong
        sample("2", [A, ELSEWHERE, B], [0, 0, 1], [0.6, 0.5, 0.4]),
    ]
    return first, second
