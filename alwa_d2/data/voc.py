"""Annotation files of PASCAL VOC, as they come from labelling tools, and sizes of images.

Detectron2's own reader asks for more than training needs (optional tags) and stops without naming
the file; this one takes what is usable and names what is not.
"""

import math
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache

from PIL import Image

from .._show import counted, show
from .checks import MAX_PIXELS, is_coordinate
from .image_headers import QUARTER_TURNS, orientation_of
from .names import files_below
from .voc_layout import find_layout
from .xml_tree import read_xml


@dataclass(frozen=True)
class VOCObject:
    """One object with the numbers of its file: `box` is (xmin, ymin, xmax, ymax) in pixels,
    counted from 1, xmax and ymax included."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class VOCAnnotation:
    """One annotation file; width and height in pixels, 0 where the file does not give them."""

    path: str
    width: int
    height: int
    objects: tuple[VOCObject, ...]


def _child(node: ET.Element, tag: str, path: str) -> ET.Element | None:
    """The child `tag` of `node`; of two, nobody could say which one is meant."""
    found = node.findall(tag)
    if len(found) > 1:
        raise ValueError(f"{path}: <{node.tag}> must have one <{tag}>, got {len(found)}")
    return found[0] if found else None


def _text(node: ET.Element, tag: str, path: str) -> str:
    """The text of child `tag`, empty where there is none."""
    child = _child(node, tag, path)
    if child is None:
        return ""
    if len(child):
        raise ValueError(f"{path}: <{tag}> must hold text, got <{child[0].tag}>")
    return (child.text or "").strip()


def _number(node: ET.Element, tag: str, path: str, default: float | None = None) -> float:
    """The number in child `tag`, within +-MAX_PIXELS; `default` where it is missing or empty."""
    text = _text(node, tag, path)
    if not text:
        if default is None:
            raise ValueError(f"{path}: <{node.tag}> has no <{tag}>")
        return default
    try:
        value = math.nan if "_" in text else float(text)  # 1_0 is a number in Python alone
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: <{tag}> must be a number, got {show(text)}")
    if not is_coordinate(value):
        raise ValueError(f"{path}: <{tag}> must be within +-{MAX_PIXELS}, got {show(text)}")
    return value


def _read_object(node: ET.Element, path: str) -> VOCObject:
    name = _text(node, "name", path)
    if not name:
        raise ValueError(f"{path}: <object> has no <name>")
    box = _child(node, "bndbox", path)
    if box is None:
        raise ValueError(f"{path}: <object> {show(name)} has no <bndbox>")
    numbers = tuple(_number(box, tag, path) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return VOCObject(name, numbers, _number(node, "difficult", path, default=0) != 0)


def _read_extent(size: ET.Element, tag: str, path: str) -> int:
    value = _number(size, tag, path, default=0)
    if value < 0 or value != int(value):
        raise ValueError(f"{path}: <{tag}> must be a whole number of pixels, got {value}")
    return int(value)


def read_annotation(path: str) -> VOCAnnotation:
    """One annotation file; `pose`, `truncated`, `difficult` and `size` may be missing from it.

    `filename`, `path` and `folder` are not looked at: an image is found by its id. What is not VOC,
    or ambiguous, raises ValueError with the path and the tag.
    """
    tree = read_xml(path)
    if tree.tag != "annotation":
        raise ValueError(f"{path}: the root tag must be <annotation>, got <{tree.tag[:100]}>")
    size = _child(tree, "size", path)
    width, height = 0, 0
    if size is not None:
        width, height = (_read_extent(size, tag, path) for tag in ("width", "height"))
    objects = tuple(_read_object(node, path) for node in tree.findall("object"))
    return VOCAnnotation(path, width, height, objects)


@cache
def names_in(folder: str) -> tuple[str, ...]:
    """Sorted names of the objects in all annotations below a folder; read once a process."""
    names, files = set(), list(files_below(folder, ".xml"))
    for file in files:
        names.update(obj.name for obj in read_annotation(os.path.join(folder, file)).objects)
    if not names:
        got = f"{counted(len(files), 'XML files')} without any" if files else "no XML file"
        raise ValueError(f"{folder}: expected annotated objects, got {got}")
    return tuple(sorted(names))


def class_names(root: str) -> tuple[str, ...]:
    """Sorted names of the objects in all annotations of `root`."""
    return names_in(find_layout(root).annotations)


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels of an image as Detectron2 reads it, turned as its EXIF tag says.

    Raises OSError with the path for what is no image, and for more pixels than Pillow takes.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = orientation_of(image) in QUARTER_TURNS
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: expected an image, got: {error}") from error
    return (height, width) if turned else (width, height)
