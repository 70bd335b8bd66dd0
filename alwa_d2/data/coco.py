"""Data sets in COCO layout: what is taken from a json file, and what is left out."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from detectron2.structures import BoxMode

from .._show import counted
from .checks import refuse
from .coco_file import read_content
from .coco_objects import ObjectReader, UnknownCategory
from .collector import collector_paused
from .findings import BAD_ANNOTATION, MISSING_IMAGE, UNKNOWN_CLASS, Findings
from .left_out import log_loaded
from .names import FileIndex
from .needs import needs_of
from .parts import Part


@dataclass(frozen=True)
class COCOSet:
    """A data set in COCO layout; calling it reads it, as Detectron2's catalog does.

    `ids` are the classes' category ids in the order of the classes; those of classes that the file
    lacks are not in it. Without `is_own`, Detectron2's COCO and what it converts, ids of
    annotations may occur twice, as they do in COCO's own minival.
    """

    name: str
    annotations: str
    images: str
    classes: tuple[str, ...] = ()
    ids: tuple[int | str, ...] = ()
    part: Part | None = None
    keypoint_names: tuple[str, ...] = ()
    is_own: bool = True

    @collector_paused()
    def __call__(self, findings: Findings | None = None) -> list[dict]:
        """Detectron2's standard dicts, boxes as [x, y, width, height] in pixels from 0.

        What cannot be used goes to `findings`, or without them raises ValueError or
        FileNotFoundError with the path. What training and evaluation do not count is left out, and
        counted in one log line.
        """
        content, left = read_content(self.annotations), Findings()
        images = self._images(content)
        numbers = {category: number for number, category in enumerate(self.ids)}
        objects = {number: [] for number in images}
        for item in self._objects(content, images, left, findings):
            objects[item["image_id"]].append(_instance(item, numbers[item["category_id"]]))
        index, records = FileIndex(self.images), []
        for number, image in sorted(images.items()):
            file_name = self._find(index, image["file_name"], findings)
            if file_name is not None:
                record = {"file_name": file_name, "image_id": number}
                record |= {"height": image["height"], "width": image["width"]}
                records.append(record | {"annotations": objects[number]})
        log_loaded(self.name, self.describe(), records, left, findings)
        return records

    @collector_paused()
    def truth(self) -> dict[str, Any]:
        """The content of a COCO file with the same images and objects, as pycocotools needs it."""
        content, left = read_content(self.annotations, self.is_own), Findings()
        images = self._images(content)
        categories = content["categories"]
        if self.ids:
            of_id = {item["id"]: item for item in categories}
            named = zip(self.ids, self.classes)
            categories = [of_id.get(number, {}) | {"id": number, "name": n} for number, n in named]
        truth = {"info": {}, "images": list(images.values()), "categories": categories}
        if "annotations" in content:  # without them Detectron2 writes results and scores nothing
            kept = self._objects(content, images, left, None)
            # pycocotools notes a match by the annotation's id, and takes 0 for none.
            truth["annotations"] = [item | {"id": i} for i, item in enumerate(kept, 1)]
        return truth

    @property
    def images_of_all(self) -> tuple:
        """What two sets share whose parts are of the same images."""
        return "coco", self.annotations

    def describe(self) -> str:
        """The layout and part in one phrase."""
        text = f"COCO, {self.annotations}, pictures in {self.images}"
        return f"{text}, {self.part}" if self.part else text

    def _images(self, content: dict) -> dict[int | str, dict]:
        images = {image["id"]: image for image in content.get("images", [])}
        if not images:
            raise ValueError(f"{self.annotations}: expected at least one image, got none")
        if self.part is None:
            return images
        chosen = self.part.of([image["file_name"] for image in images.values()])
        if not chosen:
            raise ValueError(
                f"{self.name}: {self.part} holds none of {counted(len(images), 'images')}"
            )
        return {k: image for k, image in images.items() if image["file_name"] in chosen}

    def _find(self, index: FileIndex, name: str, findings: Findings | None) -> str | None:
        found = index.find(name)
        if found is not None:
            return os.path.join(self.images, found)
        path = os.path.join(self.images, name)
        text = f"the image is missing ({self.annotations}); {index.hint(name)}"
        refuse(findings, MISSING_IMAGE, path, "", text, FileNotFoundError)
        return None

    def _objects(
        self, content: dict, images: dict, left: Findings, findings: Findings | None
    ) -> Iterator[dict]:
        """The annotations that training and evaluation count, with every key that these need."""
        reader = ObjectReader(self, content, images, needs_of(self.name))
        for index, item in enumerate(content.get("annotations", [])):
            try:
                if (kept := reader.read(index, item, left)) is not None:
                    yield kept
            except ValueError as error:
                kind = UNKNOWN_CLASS if isinstance(error, UnknownCategory) else BAD_ANNOTATION
                refuse(findings, kind, self.annotations, reader.where(index, item), str(error))
        for kind, where, text in reader.lacks():
            refuse(findings, kind, self.annotations, where, text)


def _instance(item: dict, number: int) -> dict:
    """Detectron2's annotation of class `number`."""
    keys = ("iscrowd", "bbox", "segmentation", "keypoints")
    instance = {key: item[key] for key in keys if key in item}
    if "keypoints" in instance:
        # COCO's keypoints are pixels' numbers, Detectron2's the pixels' middles.
        points = enumerate(instance["keypoints"])
        instance["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in points]
    return instance | {"category_id": number, "bbox_mode": BoxMode.XYWH_ABS}
