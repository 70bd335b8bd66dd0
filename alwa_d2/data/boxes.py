"""Boxes that neither training nor evaluation counts.

Detectron2's training drops boxes of no extent without a word, and those that lie outside of their
image; its evaluators count them as objects that were not found. Here both leave them out.
"""

from .findings import REVERSED, WARNING, ZERO_AREA, Kind

# Pixels: below it, training's float32 and its own threshold (1e-5 of the resized image) may make a
# box empty. No box that is meant is so small.
_MIN_EXTENT = 1e-3

OUTSIDE = Kind("boxes outside of their image", WARNING, "left out; correct the box, or the size")


def fault_of_box(
    xmin: float, ymin: float, xmax: float, ymax: float, *, shift: float = 0.0, size=(0, 0)
) -> tuple[Kind, str] | None:
    """Why a box is left out, and what its numbers say; None for a box to keep.

    `shift` is taken from xmin and ymin to come to pixels counted from 0 (1 for VOC's). The `size`
    of the image is (width, height) in pixels, (0, 0) where it is not known.
    """
    wide, high = xmax - xmin >= _MIN_EXTENT, ymax - ymin >= _MIN_EXTENT
    if wide and high and xmin >= shift and ymin >= shift and xmax <= size[0] and ymax <= size[1]:
        return None  # most boxes: data sets have millions
    sides = {"x": (xmin, xmax, size[0]), "y": (ymin, ymax, size[1])}
    for axis, (low, high, _) in sides.items():
        if high < low:
            return REVERSED, f"{axis}min {low:g} is above {axis}max {high:g}"
    for axis, (low, high, _) in sides.items():
        if high - low < _MIN_EXTENT:
            return ZERO_AREA, f"{axis}min {low:g}, {axis}max {high:g}"
    for axis, (low, high, extent) in sides.items():
        low -= shift
        if extent > 0 and min(high, extent) - max(low, 0) < _MIN_EXTENT:
            side = "wide" if axis == "x" else "high"
            return OUTSIDE, f"{axis} from {low:g} to {high:g}, the image is {extent} pixels {side}"
    return None
