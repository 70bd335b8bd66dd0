"""What a COCO json file must hold: pycocotools and Detectron2 read such files without checks.

Ids that occur twice, annotations of an image "1" that is called 1, or an `iscrowd` of null lose
boxes without a word.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from .._show import show
from .checks import MAX_PIXELS, is_below, is_coordinate, is_number
from .collector import collector_paused

_ID = "a whole number of at most 63 bits or a text"


@dataclass(frozen=True)
class Header:
    """What an entry of DATASETS.REGISTER asks of a file."""

    categories: dict[int | str, str]  # id -> name, in the order of ids
    used: frozenset[int | str]  # category ids of the annotations
    keypoint_names: tuple[str, ...]  # () where no category has any


@collector_paused()
def read_content(path: str, in_folder: bool = True) -> dict[str, Any]:
    """A file's content, with images and categories checked; ValueError with the path.

    Images are in a folder, which their names must not lead out of; without `in_folder`, where no
    image is opened, their names may be anything, as in files that Detectron2 converts.
    Annotations are a list of objects; :func:`check_annotation` looks at each.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(40)
        # Windows' tools write a byte order mark, or UTF-16.
        with open(path, encoding=json.detect_encoding(begin)) as file:
            content = json.load(file)
        _categories(content)
        _check_images(content, in_folder)
        _list(content, "annotations")
    except RecursionError as error:
        raise ValueError(f"{path}: not a COCO json file: nested too deeply") from error
    except json.JSONDecodeError as error:
        text = f"no JSON ({error}); it begins with {begin!r}" if begin else "the file is empty"
        raise ValueError(f"{path}: not a COCO json file: {text}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not a COCO json file: {error}") from error
    return content


@cache
def read_header(path: str) -> Header:
    """Categories and keypoints of a file, read once a process; ValueError with the path."""
    content = read_content(path)
    used = (item.get("category_id") for item in content.get("annotations", []))
    known = _categories(content)
    try:
        names = _keypoint_names(content)
    except ValueError as error:
        raise ValueError(f"{path}: not a COCO json file: {error}") from error
    return Header(known, frozenset(each for each in used if _is_id(each)), names)


def refuse_value(key: str, expected: str, got: Any) -> None:
    raise ValueError(f"{key} must be {expected}, got {show(got)}")


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


def _require(item: dict, *keys: str) -> None:
    for key in keys:
        if key not in item:
            raise ValueError(f"there is no {key!r}")


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _check_ids(key: str, items: list[dict]) -> list:
    """The ids of `items`: all different and of one type, so that they can be put in order."""
    seen = {}
    for index, item in enumerate(items):
        where = f"{key}[{index}]: "
        if "id" not in item:
            raise ValueError(where + "there is no 'id'")
        number = item["id"]
        if not _is_id(number):
            refuse_value(where + "id", _ID, number)
        if number in seen:
            refuse_value(where + "id", f"another than that of {key}[{seen[number]}]", number)
        seen[number] = index
    if len({type(number) for number in seen}) > 1:
        raise ValueError(f"{key}: expected ids of one type, got whole numbers and texts")
    return list(seen)


def _categories(content: Any) -> dict[int | str, str]:
    items = _list(content, "categories")
    _check_ids("categories", items)
    ids: dict[str, int | str] = {}
    for index, item in enumerate(items):
        name = item.get("name")
        if not (isinstance(name, str) and name.strip()):
            refuse_value(f"categories[{index}]: name", "a text", name)
        if name in ids:
            raise ValueError(
                f"expected names of categories that differ, got {show(name)} for the ids "
                f"{show(ids[name])} and {show(item['id'])}; take one of them out, and give its id "
                "to the annotations of the other"
            )
        ids[name] = item["id"]
    if not ids:
        raise ValueError("expected at least one category, got none")
    return dict(sorted((number, name) for name, number in ids.items()))


def _keypoint_names(content: dict) -> tuple[str, ...]:
    """The names of the keypoints, which all categories that have any must share."""
    found: dict[tuple[str, ...], str] = {}
    for item in content["categories"]:
        names = item.get("keypoints") or []
        if not (isinstance(names, list) and all(isinstance(n, str) and n for n in names)):
            refuse_value(f"category {show(item['name'])}: keypoints", "a list of names", names)
        if names:
            found.setdefault(tuple(names), item["name"])
    if len(found) > 1:
        raise ValueError(
            "expected one list of keypoints, as a model has one, got others for the categories "
            f"{show(list(found.values()))}"
        )
    return next(iter(found), ())


def _check_images(content: dict, in_folder: bool) -> None:
    items = _list(content, "images")
    for index, item in enumerate(items):
        where = f"images[{index}]: "
        try:
            _require(item, "file_name", "height", "width")
        except ValueError as error:
            raise ValueError(f"{where}{error}") from error
        name = item["file_name"]
        if not (isinstance(name, str) and (is_below(name) or not in_folder)):
            refuse_value(where + "file_name", "a path below the folder of images", name)
        for key in ("height", "width"):
            side = item[key]
            if not (is_coordinate(side) and side > 0 and side == int(side)):
                refuse_value(where + key, "a whole number of pixels", side)
    _check_ids("images", items)


def check_reference(item: dict, id_types: tuple[type, ...]) -> None:
    """Refuses an annotation whose own id, image (of `id_types`) or category could not be one."""
    _require(item, "id", "image_id", "category_id")
    if not _is_id(item["id"]):
        refuse_value("id", _ID, item["id"])
    image, category = item["image_id"], item["category_id"]
    if type(image) not in id_types:
        refuse_value("image_id", "an image's id", image)
    if type(category) not in (int, float, str):
        refuse_value("category_id", "a category's id", category)


def check_object(item: dict) -> None:
    """Refuses an annotation with another box, `iscrowd`, `area` or `ignore` than COCO's."""
    box = item.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_coordinate, box))):
        refuse_value("bbox", f"[x, y, width, height], within +-{MAX_PIXELS}", box)
    if item.get("iscrowd", 0) not in (0, 1):
        refuse_value("iscrowd", "0 or 1", item["iscrowd"])
    if item.get("ignore", 0) != 0:
        raise ValueError(
            '"ignore" must be 0 or missing, which Detectron2 and COCO read in different ways, got '
            f"{show(item['ignore'])}; iscrowd 1 is what neither counts"
        )
    area = item.get("area")  # some tools write null where they do not know it
    if box[2] > 0 and box[3] > 0 and area is not None:  # other boxes are left out anyway
        if not (is_number(area) and area >= 0):
            refuse_value("area", "a number of at least 0", area)
