"""Which annotations of a COCO file training and evaluation count, and what they take of them."""

from collections.abc import Iterator
from typing import Any

from .._show import show
from .boxes import fault_of_box
from .coco_file import check_object, check_reference
from .coco_shapes import usable_keypoints, usable_mask, visible
from .findings import ERROR, WARNING, Findings, Kind
from .needs import Needs

NO_IMAGE = Kind("annotations of images that the file lacks", WARNING, "left out; add the images")
NO_MASK = Kind(
    "objects without a usable mask", WARNING, "left out; give polygons of at least 3 corners"
)
NO_POINTS = Kind(
    "objects without keypoints, of which the box is used", WARNING,
    "annotate the points, if they show",
)  # fmt: skip
_NO_MASKS = Kind(
    "data sets without masks", ERROR, "set MODEL.MASK_ON to False, or annotate the objects' masks"
)
_NO_KEYPOINTS = Kind(
    "data sets without keypoints", ERROR, "set MODEL.KEYPOINT_ON to False, or annotate keypoints"
)


class UnknownCategory(ValueError):
    """An annotation's category is not one of the data set's."""


class ObjectReader:
    """Looks at the annotations of a file one after the other."""

    def __init__(self, source: Any, content: dict, images: dict, needs: Needs):
        """
        Args:
            source: the `COCOSet`
            content: the file's
            images: id -> image, those of the set's part
            needs: what the model reads
        """
        self._source, self._images, self._needs = source, images, needs
        self._all_images = {image["id"] for image in content.get("images", [])}
        self._id_types = (str,) if any(isinstance(i, str) for i in images) else (int, float)
        self._categories = source.ids or tuple(c["id"] for c in content["categories"])
        self._known = frozenset(self._categories)
        self._seen: set = set()
        self._first = ""  # object, for messages
        self._objects = self._masks = self._keypoints = 0

    @staticmethod
    def where(index: int, item: dict) -> str:
        """The annotation `item`, for messages."""
        image = f" of image id {show(item['image_id'])}" if "image_id" in item else ""
        return f"annotations[{index}]{image}"

    def read(self, index: int, item: dict, left: Findings) -> dict | None:
        """The annotation as it is used, or None; what is left out goes to `left`.

        Raises ValueError for an annotation that is not COCO's, UnknownCategory among them.
        """
        check_reference(item, self._id_types)
        self._check_id(item["id"])
        image = self._images.get(item["image_id"])
        if image is None:
            if item["image_id"] not in self._all_images:
                self._leave_out(NO_IMAGE, index, item, "there is no image of this id", left)
            return None
        check_object(item)
        if item["category_id"] not in self._known:
            got, known = show(item["category_id"]), show(list(self._categories))
            raise UnknownCategory(f"unknown category_id {got}, not in {known}")
        x, y, width, height = item["bbox"]
        size = (image["width"], image["height"])
        if fault := fault_of_box(x, y, x + width, y + height, size=size):
            text = f"bbox [{x:g}, {y:g}, {width:g}, {height:g}] ({fault[1]})"
            self._leave_out(fault[0], index, item, text, left)
            return None
        return self._with_shapes(index, item, image, left)

    def lacks(self) -> Iterator[tuple[Kind, str, str]]:
        """What the model needs and no object has: kind, first object, text."""
        for kind, key, wanted, found, name in (
            (_NO_MASKS, "MASK_ON", self._needs.masks, self._masks, "segmentation"),
            (_NO_KEYPOINTS, "KEYPOINT_ON", self._needs.keypoints, self._keypoints, "keypoints"),
        ):
            if wanted and self._objects and not found:
                text = f"MODEL.{key} is True, but this and the other objects have no usable {name}"
                yield kind, self._first, f"{text} ({self._objects} in {self._source.name})"

    def _leave_out(self, kind: Kind, index: int, item: dict, text: str, left: Findings) -> None:
        left.add(kind, self._source.annotations, self.where(index, item), text)

    def _check_id(self, number: int | str) -> None:
        if number in self._seen and self._source.is_own:
            raise ValueError(
                f"id {show(number)} is that of an annotation before it; number the annotations anew"
            )
        self._seen.add(number)

    def _with_shapes(self, index: int, item: dict, image: dict, left: Findings) -> dict | None:
        number = len(self._source.keypoint_names)
        mask = usable_mask(item, image, self._needs)
        points = usable_keypoints(item, number, self._needs)
        self._first = self._first or self.where(index, item)
        self._objects += 1
        self._masks += mask is not None
        self._keypoints += points is not None
        if self._needs.masks and mask is None:
            text = "no segmentation" if not item.get("segmentation") else "no polygon of 3 corners"
            self._leave_out(NO_MASK, index, item, text, left)
            return None
        kept = item.copy()
        kept.setdefault("iscrowd", 0)
        # Some tools write 0 or null for all; COCO's small, medium and large go by it.
        kept["area"] = item.get("area") or item["bbox"][2] * item["bbox"][3]
        if points is None and self._needs.keypoints:
            self._leave_out(NO_POINTS, index, item, "no keypoints", left)
            points = [0] * (3 * number)
        for key, value in (("segmentation", mask), ("keypoints", points)):
            kept.pop(key, None)
            if value is not None:
                kept[key] = value
        if points is not None:
            kept["num_keypoints"] = visible(points)
        return kept
