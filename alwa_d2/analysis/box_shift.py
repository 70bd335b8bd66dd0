"""How far a box can slide before other anchors count as positive: measured and tabulated.

The ground truth of a data set is moved, and the anchors are labelled anew by the model's own rule.
"""

import csv
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.structures.boxes import matched_pairwise_iou
from tabulate import tabulate

from .._show import counted
from ..errors import UserError
from .anchor_labels import NOT_POSITIVE, Labeller, Sample, shifted
from .images import progress

# The signs of a shift in x and in y, all of which are averaged over.
DIRECTIONS = {
    "x": ((1, 0), (-1, 0)),
    "y": ((0, 1), (0, -1)),
    "x and y": ((1, 1), (1, -1), (-1, 1), (-1, -1)),
}


@dataclass(frozen=True)
class Row:
    """What was measured at one shift; the field names are the CSV's header."""

    direction: str
    shift_px: float
    positives_per_image: float
    still_positive: float  # share of the anchors positive at 0, with the class that they had
    changed: float  # share of the anchors positive at 0 or here that are not so in both places
    iou_with_unmoved: float  # mean over boxes
    best_anchor_iou: float  # mean over boxes of the highest IoU with any anchor


def measure_image(labeller: Labeller, truth: Instances, shifts: Sequence[float]) -> np.ndarray:
    """
    Sums for one image, (directions, shifts, 8): moved copies, boxes; anchors positive before,
    after, in both with one class, in either; IoU with the unmoved box, and the best anchor's.
    """
    anchors = labeller.anchors(truth.image_size)
    before = labeller.label(truth, anchors)[0]
    was = before != NOT_POSITIVE
    sums = np.zeros((len(DIRECTIONS), len(shifts), 8))
    for row, signs in zip(sums, DIRECTIONS.values()):
        for cell, shift in zip(row, shifts):
            for x, y in signs:
                moved = shifted(truth, x * shift, y * shift)
                after, best = labeller.label(moved, anchors)
                now = after != NOT_POSITIVE
                counts = (was.sum(), now.sum(), (was & (before == after)).sum(), (was | now).sum())
                iou = matched_pairwise_iou(truth.gt_boxes, moved.gt_boxes)
                cell += [1, len(truth), *map(int, counts), float(iou.sum()), float(best.sum())]
    return sums


def measure(labeller: Labeller, samples: Sequence[Sample], shifts: Sequence[float]) -> list[Row]:
    """One row for each direction and shift; shares are of all images' anchors together."""
    sums = sum(measure_image(labeller, sample.truth, shifts) for sample in progress(samples))
    rows = []
    for name, table in zip(DIRECTIONS, sums):
        for shift, cell in zip(shifts, table):
            copies, boxes, before, after, same, either, iou, best = cell.tolist()
            if not before:
                raise UserError("no anchor is positive: MODEL.ANCHOR_GENERATOR.SIZES fit no box")
            shares = (after / copies, same / before, 1 - same / either, iou / boxes, best / boxes)
            rows.append(Row(name, shift, *shares))
    return rows


def write_csv(rows: Sequence[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        for row in rows:
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row))


def format_table(rows: Sequence[Row]) -> str:
    """The rows for people, shares in per cent."""
    header = ("direction", "shift px", "positives/image", "still positive", "label changed")
    forms = ("", "g", ".1f", ".1%", ".1%", ".3f", ".3f")
    cells = [[format(value, form) for value, form in zip(astuple(row), forms)] for row in rows]
    columns = dict(headers=(*header, "IoU", "best anchor"), colalign=("left", *["right"] * 6))
    return tabulate(cells, **columns, tablefmt="plain", disable_numparse=True)


def describe(name: str, architecture: str, samples: Sequence[Sample]) -> str:
    """What was measured, in a line; the size of a box is the root of its area."""
    sizes = torch.cat([sample.truth.gt_boxes.area() for sample in samples]).sqrt()
    held = f"{counted(len(samples), 'images')}, {counted(len(sizes), 'boxes')}"
    return f"{name}, {architecture}: {held}, median size {sizes.median():.0f} px"
