"""Data sets in PASCAL VOC layout: the images of a split, with their files, sizes and objects."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from detectron2.structures import BoxMode
from PIL import Image

from .._show import counted, show
from .boxes import fault_of_box
from .checks import refuse
from .findings import (
    BAD_ANNOTATION,
    MISSING_ANNOTATION,
    MISSING_IMAGE,
    UNKNOWN_CLASS,
    WARNING,
    Findings,
    Kind,
)
from .left_out import log_loaded
from .names import FileIndex, files_below, plain
from .parts import Part
from .voc import VOCAnnotation, VOCObject, image_size, read_annotation
from .voc_layout import Layout, find_layout
from .voc_split import split_ids

# Tried in this order where several pictures have one id; then what else Pillow reads.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


_NO_XML = Kind("pictures without an XML file", WARNING, "left out; write one, without objects")


@dataclass(frozen=True)
class VOCImage:
    """One image of a set: `size` is (width, height) in pixels, (0, 0) where nothing tells it, and
    `file_name` "" where there is none."""

    image_id: str
    annotation: VOCAnnotation
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class VOCSet:
    """A data set in VOC layout; calling it reads it, as Detectron2's catalog does."""

    name: str
    layout: Layout
    split: str | None
    part: Part | None
    classes: tuple[str, ...]

    def __call__(self, findings: Findings | None = None) -> list[dict]:
        """Detectron2's standard dicts, boxes in pixels from 0 (XYXY_ABS).

        What cannot be used goes to `findings`, or without them raises ValueError or
        FileNotFoundError with the name of the file. Boxes that are reversed, of zero area or
        outside of their image are left out, and counted in one log line.
        """
        left = Findings()
        numbers = {name: number for number, name in enumerate(self.classes)}
        records = []
        for image in self.images(findings):
            record = {"file_name": image.file_name, "image_id": image.image_id}
            if image.size != (0, 0):
                record["width"], record["height"] = image.size
            objects = self.objects(image, left, findings)
            record["annotations"] = [_instance(obj, numbers[obj.name]) for obj in objects]
            records.append(record)
        if self.split is None:
            self._note_unannotated(records, left)
        log_loaded(self.name, self.describe(), records, left, findings)
        return records

    def _note_unannotated(self, records: list[dict], left: Findings) -> None:
        """Adds the pictures that have no XML file, where all of it is read."""
        used = {os.path.relpath(record["file_name"], self.layout.images) for record in records}
        ids = {plain(image_id).casefold() for image_id in split_ids(self.layout, None)}
        for name in files_below(self.layout.images):
            stem, suffix = os.path.splitext(name)
            known = name in used or plain(stem).casefold() in ids
            if not known and suffix.lower() in readable_suffixes():
                path = os.path.join(self.layout.images, name)
                left.add(_NO_XML, path, "", "there is no XML file of this name")

    def _find_xml(self, index: FileIndex, image_id: str) -> str:
        """The XML file of an id, from the index' folder on.

        Ids may end in a picture's suffix, and begin with the name of the pictures' folder.
        """
        stems = [image_id]
        folder, _, rest = plain(image_id).partition("/")
        if rest and folder in map(os.path.basename, (self.layout.images, self.layout.annotations)):
            stems.append(rest)
        for stem in list(stems):
            shorter, suffix = os.path.splitext(stem)
            if suffix.lower() == ".xml" or suffix.lower() in readable_suffixes():
                stems.append(shorter)
        found = (index.find(stem + ".xml") for stem in stems)
        return next(filter(None, found), image_id + ".xml")

    @property
    def images_of_all(self) -> tuple:
        """What two sets share whose parts are of the same images."""
        return "voc", self.layout.annotations, self.split

    def ids(self) -> list[str]:
        """The image ids of the split and part, as the list has them."""
        ids = split_ids(self.layout, self.split)
        if self.part is None:
            return ids
        chosen = self.part.of(ids)
        if not chosen:
            raise ValueError(
                f"{self.name}: {self.part} holds none of {counted(len(ids), 'images')}"
            )
        return [image_id for image_id in ids if image_id in chosen]

    def images(
        self, findings: Findings | None = None, needs_file: bool = True
    ) -> Iterator[VOCImage]:
        """The images in the order of ids; without `needs_file` also those that have no picture."""
        annotations = FileIndex(self.layout.annotations, ".xml")
        pictures = FileIndex(self.layout.images)
        # An id may be listed in two forms, such as a and a.jpg.
        for name in dict.fromkeys(self._find_xml(annotations, listed) for listed in self.ids()):
            path, image_id = os.path.join(annotations.folder, name), name[: -len(".xml")]
            try:
                annotation = read_annotation(path)
            except FileNotFoundError as error:
                found = f"{str(error).removeprefix(f'{path}: ')}; {annotations.hint(name)}"
                refuse(findings, MISSING_ANNOTATION, path, "", found, FileNotFoundError)
                continue
            except ValueError as error:
                found = str(error).removeprefix(f"{path}: ")
                refuse(findings, BAD_ANNOTATION, path, "", found)
                continue
            file_name = find_picture(pictures, image_id)
            if file_name is None and needs_file:
                file = os.path.join(self.layout.images, image_id + ".jpg")
                hint = pictures.hint(image_id + ".jpg")
                found = f"the image is missing, under this or another suffix; {hint}"
                refuse(findings, MISSING_IMAGE, file, "", found, FileNotFoundError)
                continue
            size = _size(annotation, file_name, needs_file and findings is None)
            yield VOCImage(image_id, annotation, file_name or "", size)

    def objects(
        self, image: VOCImage, left: Findings, findings: Findings | None = None
    ) -> list[VOCObject]:
        """The objects of an image that training and evaluation count; the others go to `left`."""
        path, kept = image.annotation.path, []
        for number, obj in enumerate(image.annotation.objects, 1):
            where = f"object {number}"
            if obj.name not in self.classes:
                expected = f"expected one of {show(list(self.classes))}"
                found = f"unknown class {show(obj.name)}, {expected}"
                refuse(findings, UNKNOWN_CLASS, path, where, found)
            elif fault := fault_of_box(*obj.box, shift=1.0, size=image.size):
                left.add(fault[0], path, where, f"{show(obj.name)}: {fault[1]}")
            else:
                kept.append(obj)
        return kept

    def describe(self) -> str:
        """The layout, split and part in one phrase."""
        parts = [self.layout.describe()]
        parts.append("all of it" if self.split is None else f"split {self.split}")
        return ", ".join(parts + ([str(self.part)] if self.part else []))


def _instance(obj: VOCObject, number: int) -> dict:
    # The pixels 1..W of the file are the interval [0, W], as in Detectron2's reader.
    xmin, ymin, xmax, ymax = obj.box
    box = [xmin - 1.0, ymin - 1.0, xmax, ymax]
    return {"category_id": number, "bbox": box, "bbox_mode": BoxMode.XYXY_ABS}


@cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes, in small letters, of the formats that Pillow reads."""
    known = Image.registered_extensions()
    return frozenset(suffix.lower() for suffix, kind in known.items() if kind in Image.OPEN)


def find_picture(index: FileIndex, image_id: str) -> str | None:
    """The picture of an id, whatever suffix that Pillow reads it has."""
    stem = os.path.join(index.folder, image_id)
    for suffix in IMAGE_SUFFIXES:
        if os.path.isfile(stem + suffix):
            return stem + suffix
    found = [
        name
        for name in index.with_stem(image_id)
        if os.path.splitext(name)[1].lower() in readable_suffixes()
    ]
    return os.path.join(index.folder, found[0]) if found else None


def _size(
    annotation: VOCAnnotation, file_name: str | None, must_be_readable: bool
) -> tuple[int, int]:
    if annotation.width > 0 and annotation.height > 0:
        return annotation.width, annotation.height
    try:
        return image_size(file_name) if file_name else (0, 0)
    except OSError:
        if must_be_readable:
            raise
        return 0, 0


def load_voc(
    root: str, split: str | None, classes: Sequence[str], name: str | None = None
) -> list[dict]:
    """Detectron2's standard dicts of a split; see :class:`VOCSet`."""
    return VOCSet(name or root, find_layout(root), split, None, tuple(classes))()
