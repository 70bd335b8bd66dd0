"""Data sets in PASCAL VOC layout, as they come from labelling tools.

A root folder holds `Annotations/<id>.xml`, `JPEGImages/<id>.jpg` and
`ImageSets/Main/<split>.txt` with one image id a line. Detectron2's own reader asks for more than
training needs (optional tags, at least two images, ids without spaces) and stops without naming
the file; this one takes what is usable and names what is not.
"""

import logging
import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager
from PIL import Image

from .._show import show
from .checks import MAX_PIXELS, is_below, is_coordinate
from .xml_tree import read_xml

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")  # in the order they are tried
MAX_SPLIT = 64 * 2**20  # characters of a split file: millions of ids
_EXIF_ORIENTATION = 0x0112
_EXIF_QUARTER_TURNS = (5, 6, 7, 8)  # orientations whose width and height change places


@dataclass(frozen=True)
class VOCObject:
    """One object with the numbers of its file: `box` is (xmin, ymin, xmax, ymax) in pixels,
    counted from 1, xmax and ymax included."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool

    @property
    def empty(self) -> bool:
        """True for zero or negative extents, before any shift of the numbers."""
        return self.box[2] <= self.box[0] or self.box[3] <= self.box[1]


@dataclass(frozen=True)
class VOCAnnotation:
    """One annotation file; width and height in pixels, 0 where the file does not give them."""

    path: str
    width: int
    height: int
    objects: tuple[VOCObject, ...]


def annotation_path(root: str, image_id: str) -> str:
    """The XML file of an image."""
    return os.path.join(root, "Annotations", image_id + ".xml")


def split_path(root: str, split: str) -> str:
    """The file that lists the image ids of a split."""
    return os.path.join(root, "ImageSets", "Main", split + ".txt")


def read_split(root: str, split: str) -> list[str]:
    """Image ids of a split, in the file's order, each once.

    Ids may hold spaces and name files in subfolders. ValueError for ids that lead out of the root's
    folders (absolute, or with ..) or hold NUL, for no ids, and for more than MAX_SPLIT characters.
    """
    path = split_path(root, split)
    if not PathManager.isfile(path):
        folder = os.path.dirname(path)
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        known = [name[: -len(".txt")] for name in names if name.endswith(".txt")]
        raise FileNotFoundError(
            f"{path}: no such split; this data set has: {', '.join(known) or 'none'}"
        )
    # Ids are file names, so bytes that are not UTF-8 are kept as the file system would have them.
    with PathManager.open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        text = file.read(MAX_SPLIT + 1)
    if len(text) > MAX_SPLIT:
        raise ValueError(f"{path}: expected at most {MAX_SPLIT} characters of image ids, got more")
    ids = [line.strip() for line in text.split("\n") if line.strip()]
    if not ids:
        raise ValueError(f"{path}: expected one image id a line, got an empty file")
    for image_id in ids:
        if not is_below(image_id):
            expected = "image ids that are file names in the root's folders, in UTF-8"
            raise ValueError(f"{path}: expected {expected}, got {show(image_id)}")
    unique = list(dict.fromkeys(ids))
    if len(unique) < len(ids):
        logger.warning("%s: %d repeated image ids are used once", path, len(ids) - len(unique))
    return unique


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
def class_names(root: str) -> tuple[str, ...]:
    """Sorted names of the objects in all annotations of `root`; read once a process."""
    folder = os.path.join(root, "Annotations")
    names = set()
    for file in sorted(os.listdir(folder)):
        if file.endswith(".xml") and not file.startswith("."):
            names.update(obj.name for obj in read_annotation(os.path.join(folder, file)).objects)
    if not names:
        raise ValueError(f"{folder}: expected annotated objects, got none")
    return tuple(sorted(names))


def find_image(root: str, image_id: str) -> str:
    """The image file of an id, whichever of IMAGE_SUFFIXES it has."""
    stem = os.path.join(root, "JPEGImages", image_id)
    for suffix in IMAGE_SUFFIXES:
        if os.path.isfile(stem + suffix):
            return stem + suffix
    raise FileNotFoundError(
        f"{stem}.jpg: the image is missing (and there is none that ends in "
        f"{', '.join(IMAGE_SUFFIXES[1:])})"
    )


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels of an image as Detectron2 reads it, turned as its EXIF tag says.

    Raises OSError with the path for what is no image, and for more pixels than Pillow takes.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = _orientation(image) in _EXIF_QUARTER_TURNS
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError(f"{path}: expected an image, got: {error}") from error
    return (height, width) if turned else (width, height)


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # Pillow fails in many ways on broken tags; Detectron2 ignores them likewise
        return None


def _instances(annotation: VOCAnnotation, ids: dict[str, int]) -> list[dict]:
    """Detectron2's annotations of one image, without those of zero area."""
    instances = []
    for obj in annotation.objects:
        if obj.name not in ids:
            raise ValueError(
                f"{annotation.path}: unknown class {show(obj.name)}, "
                f"expected one of {show(list(ids))}"
            )
        if obj.empty:
            continue
        # The pixels 1..W of the file are the interval [0, W], as in Detectron2's reader.
        xmin, ymin, xmax, ymax = obj.box
        box = [xmin - 1.0, ymin - 1.0, xmax, ymax]
        instances.append({"category_id": ids[obj.name], "bbox": box, "bbox_mode": BoxMode.XYXY_ABS})
    return instances


def load_voc(root: str, split: str, classes: Sequence[str]) -> list[dict]:
    """Detectron2's standard dicts of a split, boxes in pixels from 0 (XYXY_ABS).

    Boxes of zero area in the file are skipped and counted in one log line. What else cannot be
    used raises ValueError or FileNotFoundError with the name of the file.
    """
    ids = {name: number for number, name in enumerate(classes)}
    records, objects = [], 0
    for image_id in read_split(root, split):
        annotation = read_annotation(annotation_path(root, image_id))
        file_name = find_image(root, image_id)
        width, height = annotation.width, annotation.height
        if width <= 0 or height <= 0:
            width, height = image_size(file_name)
        record = {"file_name": file_name, "image_id": image_id, "height": height, "width": width}
        record["annotations"] = _instances(annotation, ids)
        objects += len(annotation.objects)
        records.append(record)
    log_loaded(split_path(root, split), records, objects)
    return records


def log_loaded(source: str, records: list[dict], objects: int) -> None:
    """One line about a loaded set; a warning if some of its `objects` were skipped as empty."""
    kept = sum(len(record["annotations"]) for record in records)
    level = logging.WARNING if kept < objects else logging.INFO
    text = "%s: %d images, %d boxes, %d boxes of zero area skipped"
    logger.log(level, text, source, len(records), kept, objects - kept)
