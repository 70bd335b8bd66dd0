"""Boxes that were probably not meant so, from their numbers alone.

All boxes of a set are looked at as one array; sizes and coordinates are in pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.structures import BoxMode

from .._show import counted
from .boxes import OUTSIDE
from .findings import ERROR, REVERSED, WARNING, ZERO_AREA, Findings, Kind

TINY = Kind("boxes below two pixels", WARNING, "hardly to be found; delete them if not meant")
BEYOND = Kind(
    "boxes beyond the image", WARNING,
    "training cuts them at its border, evaluation does not; draw them inside",
)  # fmt: skip
BAD_CLASS = Kind(
    "class numbers without a class", ERROR, "number the classes from 0, as thing_classes has them"
)
COORDINATES = Kind(
    "data sets whose coordinates look like something else", WARNING,
    "write pixels: corners for VOC, [x, y, width, height] for COCO",
)  # fmt: skip

_MIN_SIDE = 2.0  # pixels
_SLACK = 1.0  # pixels over the border that rounding and counting from 1 explain
# Shares of a set's boxes from which on they are a habit and not slips.
_MOST, _SOME = 0.95, 0.1
_SHARES_END = 2.0  # pixels: shares end within 1, and begin there with a middle for a corner
_MIN_BOXES = 20  # for guesses that a few boxes would fit by chance


@dataclass(frozen=True)
class Boxes:
    """The boxes of a set, M in all, with `owner` (M,) the record of each, `place` (M,) its number
    in the record, from 0, and `frame` (M, 2) the width and height of its image."""

    corners: np.ndarray  # (M, 4): xmin, ymin, xmax, ymax, from 0
    classes: np.ndarray  # (M,)
    crowd: np.ndarray  # (M,) bool
    owner: np.ndarray
    place: np.ndarray
    frame: np.ndarray
    as_extents: bool  # whether the set's boxes were given as [x, y, width, height]

    @property
    def sides(self) -> np.ndarray:
        """(M, 2): width and height."""
        return self.corners[:, 2:] - self.corners[:, :2]

    @property
    def overhang(self) -> np.ndarray:
        """(M,): pixels by which a box stands over the border of its image, 0 for none."""
        over = np.concatenate((-self.corners[:, :2], self.corners[:, 2:] - self.frame), axis=1)
        return over.max(axis=1, initial=0.0)


def collect_boxes(records: Sequence[dict], sizes: Sequence[tuple[int, int]]) -> Boxes:
    """The boxes of Detectron2's records, those that are no upright boxes left out.

    Args:
        records: (N,)
        sizes: (N,) of (width, height)
    """
    rows, modes, facts = [], [], []
    for owner, record in enumerate(records):
        for place, item in enumerate(record.get("annotations", ())):
            if item["bbox_mode"] in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
                rows.append(tuple(item["bbox"]))
                modes.append(item["bbox_mode"] == BoxMode.XYWH_ABS)
                facts.append((item["category_id"], item.get("iscrowd", 0), owner, place))
    corners = np.array(rows, np.float64).reshape(-1, 4)
    extents = np.array(modes, bool)
    corners[extents, 2:] += corners[extents, :2]
    classes, crowd, owner, place = np.array(facts, np.int64).reshape(-1, 4).T
    frame = np.array(sizes, np.float64).reshape(-1, 2)[owner]
    as_extents = bool(len(extents) and extents.all())
    return Boxes(corners, classes, crowd.astype(bool), owner, place, frame, as_extents)


def check_boxes(boxes: Boxes, records: Sequence[dict], names: Sequence[str], findings: Findings):
    """Adds what single boxes show; `names` are the classes'."""
    shortest = boxes.sides.min(axis=1, initial=np.inf)
    outside = ((boxes.corners[:, 2:] <= 0) | (boxes.corners[:, :2] >= boxes.frame)).any(axis=1)
    regular = shortest > 0
    cases = {
        BAD_CLASS: (boxes.classes < 0) | (boxes.classes >= max(len(names), 1)),
        REVERSED: shortest < 0,
        ZERO_AREA: shortest == 0,
        TINY: regular & (shortest < _MIN_SIDE),
        OUTSIDE: regular & outside,
        BEYOND: regular & ~outside & (boxes.overhang > _SLACK),
    }
    for kind, mask in cases.items():
        if kind == BAD_CLASS and not names:
            continue
        for index in np.flatnonzero(mask):
            record, number = records[boxes.owner[index]], int(boxes.classes[index])
            name = names[number] if 0 <= number < len(names) else f"class {number}"
            frame = " x ".join(f"{side:g}" for side in boxes.frame[index])
            corners = ", ".join(f"{value:g}" for value in boxes.corners[index])
            where = f"object {boxes.place[index] + 1} ({name})"
            findings.add(kind, record["file_name"], where, f"[{corners}] in {frame}")


def check_coordinates(boxes: Boxes, name: str, reversed_boxes: int, findings: Findings) -> None:
    """Adds what the boxes of the set `name` show together: shares of the image, corners taken for
    extents. `reversed_boxes` is the number that the reader left out."""
    for text in _guesses(boxes, reversed_boxes):
        findings.add(COORDINATES, name, "", text)


def _guesses(boxes: Boxes, reversed_boxes: int) -> Iterator[str]:
    total = len(boxes.corners)
    if reversed_boxes > max(0.3 * (total + reversed_boxes), 1):
        yield (
            f"{reversed_boxes} of {total + reversed_boxes} boxes end before they begin: corners in "
            "another order, or width and height in place of xmax and ymax"
        )
    if not total:
        return
    far = boxes.corners[:, 2:].max(axis=1)  # of each box
    large = boxes.frame.min(axis=1)
    if np.mean((far <= _SHARES_END) & (large > 10)) > 0.5:
        yield (
            f"most boxes end within {_SHARES_END:g} pixels of the corner, as numbers from 0 to 1 "
            "do, shares of the image's width and height"
        )
    elif total >= _MIN_BOXES and far.max() <= 100.0 and large.min() >= 200:
        yield "all boxes lie within 0..100, as percent of the image's width and height do"
    elif np.mean(boxes.overhang > _SLACK) >= _SOME:
        yield from _guess_of_overhang(boxes)


def _guess_of_overhang(boxes: Boxes) -> Iterator[str]:
    """Boxes stand over their images by more than rounding: what would explain it."""
    count, total = int((boxes.overhang > _SLACK).sum()), len(boxes.corners)
    text = f"{count} of {counted(total, 'boxes')} over the border of the image"
    low, extents, frame = boxes.corners[:, :2], boxes.sides, boxes.frame
    as_corners = ((extents >= low) & (extents <= frame + _SLACK)).all(axis=1)
    as_middles = ((low >= extents / 2 - _SLACK) & (low + extents / 2 <= frame + _SLACK)).all(axis=1)
    swapped = (boxes.corners[:, 2:] <= frame[:, ::-1] + _SLACK).all(axis=1)
    if boxes.as_extents and as_corners.mean() >= _MOST:
        yield f"{text}; their last two numbers look like xmax and ymax, not width and height"
    elif boxes.as_extents and as_middles.mean() >= _MOST:
        yield f"{text}; their first two numbers look like the box's middle, not its corner"
    elif swapped.mean() >= _MOST:
        yield f"{text}, and none with x and y changed: were they written as rows and columns?"
    else:
        yield f"{text}: were they drawn on images of another size?"
