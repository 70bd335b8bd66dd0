"""Data sets in COCO layout: what is taken from a json file, and what is refused.

pycocotools and Detectron2 read such files without checks: ids that occur twice, annotations of an
image "1" that is called 1, or an `iscrowd` of null lose boxes without a word.
"""

import json
import os
from functools import cache
from typing import Any

from detectron2.data.datasets import load_coco_json

from .._show import show
from .checks import MAX_PIXELS, is_below, is_coordinate, is_number
from .voc import log_loaded

_ID = "a whole number of at most 63 bits or a text"
# What Detectron2 and pycocotools raise for content that is not checked here.
_READER_ERRORS = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)


@cache
def _scan(path: str) -> tuple[dict[int | str, str], str]:
    """Category id -> name in the order of ids, and what is wrong with the rest of the file, or "".

    The file is read once a process. Broken categories raise ValueError.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        categories = _categories(content)
    except RecursionError as error:
        raise ValueError(f"{path}: not a COCO json file: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path}: not a COCO json file: {error}") from error
    try:
        _check_annotations(content, _check_images(content), categories)
    except ValueError as error:
        return categories, f"{path}: not a COCO json file: {error}"
    return categories, ""


def read_categories(path: str) -> dict[int | str, str]:
    """Category id -> name in the order of ids; ValueError with the path for broken ones."""
    return dict(_scan(path)[0])


def check_file(path: str) -> None:
    """Raises ValueError with path, entry and key if images or annotations are not COCO's."""
    if fault := _scan(path)[1]:
        raise ValueError(fault)


def _refuse(where: str, key: str, expected: str, got: Any) -> None:
    raise ValueError(f"{where}: {key} must be {expected}, got {show(got)}")


def _list(content: Any, key: str) -> list[dict]:
    """The objects of `content[key]`, none where it is missing."""
    if not isinstance(content, dict):
        raise ValueError(f"expected an object, got a {type(content).__name__}")
    items = content.get(key, [])
    if not isinstance(items, list):
        raise ValueError(f"{key} must be a list, got {show(items)}")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"{key}[{index}] must be an object, got {show(item)}")
    return items


def _require(where: str, item: dict, *keys: str) -> None:
    for key in keys:
        if key not in item:
            raise ValueError(f"{where}: there is no {key!r}")


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _check_ids(key: str, items: list[dict]) -> list:
    """The ids of `items`: all different and of one type, so that they can be put in order."""
    seen = {}
    for index, item in enumerate(items):
        where = f"{key}[{index}]"
        _require(where, item, "id")
        number = item["id"]
        if not _is_id(number):
            _refuse(where, "id", _ID, number)
        if number in seen:
            _refuse(where, "id", f"another than that of {key}[{seen[number]}]", number)
        seen[number] = index
    if len({type(number) for number in seen}) > 1:
        raise ValueError(f"{key}: expected ids of one type, got whole numbers and texts")
    return list(seen)


def _categories(content: Any) -> dict[int | str, str]:
    items = _list(content, "categories")
    ids = _check_ids("categories", items)
    for index, item in enumerate(items):
        name = item.get("name")
        if not (isinstance(name, str) and name.strip()):
            _refuse(f"categories[{index}]", "name", "a text", name)
    if not len(ids) == len({item["name"] for item in items}) > 0:
        raise ValueError("expected at least one category, ids and names all different")
    return dict(sorted((item["id"], item["name"]) for item in items))


def _check_images(content: dict) -> list:
    """The images' ids."""
    items = _list(content, "images")
    for index, item in enumerate(items):
        where = f"images[{index}]"
        _require(where, item, "file_name", "height", "width")
        name = item["file_name"]
        if not (isinstance(name, str) and is_below(name)):
            _refuse(where, "file_name", "a path below the folder of images", name)
        for key in ("height", "width"):
            side = item[key]
            if not (is_coordinate(side) and side > 0 and side == int(side)):
                _refuse(where, key, "a whole number of pixels", side)
    return _check_ids("images", items)


def _check_annotations(content: dict, images: list, categories: dict) -> None:
    known = set(images)
    kind = str if images and isinstance(images[0], str) else (int, float)
    for index, item in enumerate(_list(content, "annotations")):
        where = f"annotations[{index}]"
        _require(where, item, "id", "image_id", "category_id")
        if not _is_id(item["id"]):
            _refuse(where, "id", _ID, item["id"])
        image = item["image_id"]
        if isinstance(image, bool) or not isinstance(image, kind):
            _refuse(where, "image_id", "an image's id", image)
        category = item["category_id"]
        if isinstance(category, bool) or not isinstance(category, (int, float, str)):
            _refuse(where, "category_id", "a category's id", category)
        if image in known:  # Detectron2 leaves the others out, and says so
            _check_object(f"{where} of image id {show(image)}", item, categories)


def _check_object(where: str, item: dict, categories: dict) -> None:
    box, category = item.get("bbox"), item["category_id"]
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_coordinate, box))):
        _refuse(where, "bbox", f"[x, y, width, height], within +-{MAX_PIXELS}", box)
    if category not in categories:
        known = show(list(categories))
        raise ValueError(f"{where}: unknown category_id {show(category)}, not in {known}")
    if item.get("iscrowd", 0) not in (0, 1):
        _refuse(where, "iscrowd", "0 or 1", item["iscrowd"])
    if box[2] > 0 and box[3] > 0 and "area" in item:  # boxes of zero area are skipped anyway
        if not (is_number(item["area"]) and item["area"] >= 0):
            _refuse(where, "area", "a number of at least 0", item["area"])
    shape = item.get("segmentation") or []
    polygons = isinstance(shape, list) and all(isinstance(part, list) for part in shape)
    if not (polygons or isinstance(shape, dict)):
        _refuse(where, "segmentation", "a list of polygons or an RLE object", shape)
    points = item.get("keypoints") or []
    if not (isinstance(points, list) and all(map(is_coordinate, points))):
        _refuse(where, "keypoints", "a list of numbers", points)


def load_coco(annotations: str, images: str, ids: dict[int | str, int]) -> list[dict]:
    """Detectron2's standard dicts of a COCO file, without boxes of zero area.

    `ids` maps category ids to class numbers: Detectron2's loader would number them itself, in the
    order of ids, so it is called without a data set name, and leaves them as they are. Raises
    ValueError or FileNotFoundError with the path for what cannot be used.
    """
    check_file(annotations)
    try:
        records = load_coco_json(annotations, images)
    except _READER_ERRORS as error:
        raise ValueError(f"{annotations}: not a COCO json file: {error}") from error
    if not records:
        raise ValueError(f"{annotations}: expected at least one image, got none")
    objects = 0
    for record in records:
        if not os.path.isfile(record["file_name"]):
            raise FileNotFoundError(f"{record['file_name']}: the image is missing ({annotations})")
        objects += len(record["annotations"])
        record["annotations"] = [
            {**instance, "category_id": ids[instance["category_id"]]}
            for instance in record["annotations"]
            if instance["bbox"][2] > 0 and instance["bbox"][3] > 0
        ]
    log_loaded(annotations, records, objects)
    return records
