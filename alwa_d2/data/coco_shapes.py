"""Masks and keypoints of COCO annotations."""

from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from .._show import counted
from .checks import is_coordinate
from .coco_file import refuse_value
from .needs import Needs

_MIN_POLYGON = 6  # numbers: three corners


def usable_mask(item: dict, image: dict, needs: Needs) -> list | dict | None:
    """The segmentation of an annotation with its usable polygons, or as compressed RLE; None if
    there is none. ValueError for what is neither, or does not fit the image."""
    shape = item.get("segmentation") or []
    if needs.masks is False:
        return None
    polygons = isinstance(shape, list) and all(isinstance(part, list) for part in shape)
    if not (polygons or isinstance(shape, dict)):
        refuse_value("segmentation", "a list of polygons or an RLE object", shape)
    if isinstance(shape, dict):
        return _rle(shape, image, needs, bool(item.get("iscrowd")))
    usable = [part for part in shape if len(part) % 2 == 0 and len(part) >= _MIN_POLYGON]
    for part in usable if needs.masks else ():
        if not _are_numbers(part):
            refuse_value("segmentation", "polygons of finite numbers", part)
    return usable or None


def _are_numbers(values: list) -> bool:
    try:
        return bool(np.isfinite(np.array(values, dtype=float)).all())
    except (TypeError, ValueError, OverflowError):
        return False


def _rle(shape: dict, image: dict, needs: Needs, is_crowd: bool) -> dict:
    counts, size = shape.get("counts"), shape.get("size")
    expected = [image["height"], image["width"]]
    if size != expected:
        refuse_value("segmentation's size", f"[height, width] of its image, {expected}", size)
    if needs.mask_format == "polygon" and not is_crowd:
        raise ValueError(
            "segmentation is an RLE mask, which INPUT.MASK_FORMAT polygon cannot take; set it to "
            "bitmask"
        )
    if isinstance(counts, list):
        whole = all(isinstance(count, int) and count >= 0 for count in counts)
        if not whole or sum(counts) != expected[0] * expected[1]:
            refuse_value("segmentation's counts", "run lengths that fill the image", counts)
        return mask_util.frPyObjects(shape, *expected)
    if not isinstance(counts, (str, bytes)):
        refuse_value("segmentation's counts", "a list or a text", counts)
    return shape


def usable_keypoints(item: dict, number: int, needs: Needs) -> list[float] | None:
    """[x, y, visibility, ...] of an annotation's `number` points (0: any), None without any.

    ValueError for another number of them, and for what are no points.
    """
    points = item.get("keypoints") or []
    if needs.keypoints is False:
        return None
    if not (isinstance(points, list) and all(map(is_coordinate, points))):
        refuse_value("keypoints", "a list of numbers", points)
    if not points:
        return None
    if needs.keypoints:
        _check_points(points, number)
    return points


def _check_points(points: list[float], number: int) -> None:
    if len(points) % 3 or (number and len(points) != 3 * number):
        expected = f"{number or 'some'} times x, y, visibility, one for each keypoint's name"
        refuse_value("keypoints", expected, counted(len(points), "numbers"))
    if not all(value in (0, 1, 2) for value in points[2::3]):
        refuse_value("keypoints", "x, y and visibility 0, 1 or 2", points)


def visible(points: Any) -> int:
    """How many keypoints are labelled."""
    return sum(value > 0 for value in points[2::3])
