"""The ground truth of a data set, and which anchors of a model count as positive for it."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.data.detection_utils import (
    annotations_to_instances,
    filter_empty_instances,
    transform_instance_annotations,
)
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances, pairwise_iou

from ..errors import UserError, user_errors

NOT_POSITIVE = -1


@dataclass(frozen=True)
class Sample:
    """An image's record and its ground truth at the size that the model would get it in."""

    record: dict
    truth: Instances  # gt_boxes (G, 4), gt_classes (G,), G > 0


class Labeller:
    """The anchors of a config's model and the rule that makes them positive, before sampling."""

    def __init__(self, cfg: CfgNode):
        with user_errors():
            self.model = build_model(cfg).eval()
        self.is_dense = isinstance(self.model, RetinaNet)
        self.head = self.model
        if not self.is_dense:
            self.head = getattr(self.model, "proposal_generator", None)
        name = cfg.MODEL.META_ARCHITECTURE
        if not hasattr(self.head, "anchor_matcher"):
            raise UserError(f"MODEL.META_ARCHITECTURE: {name} has no anchors that are matched")
        if self.head.anchor_generator.box_dim != 4:
            raise UserError("MODEL.ANCHOR_GENERATOR.NAME: rotated anchors are not supported")
        self._channels = len(cfg.MODEL.PIXEL_MEAN)
        self._anchors: dict[tuple[int, int], Boxes] = {}

    @torch.no_grad()
    def anchors(self, size: tuple[int, int]) -> Boxes:
        """Those of an image of `size` (height, width), padded as the model pads it."""
        pixels = self.model.preprocess_image([{"image": torch.zeros(self._channels, *size)}]).tensor
        key = tuple(pixels.shape[-2:])
        if key not in self._anchors:
            features = self.model.backbone(pixels)  # wanted for their sizes alone
            names = self.model.head_in_features if self.is_dense else self.head.in_features
            maps = [features[name] for name in names]
            self._anchors[key] = Boxes.cat(self.head.anchor_generator(maps))
        return self._anchors[key]

    def label(self, truth: Instances, anchors: Boxes) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Each anchor's class, (R,), NOT_POSITIVE where it is background or ignored, and each box's
        highest IoU with any anchor, (G,). For an RPN all objects are of class 0.

        A box that overlaps no anchor has no positive one: the matcher, which sees no such box in
        training, would make all anchors positive for its sake.
        """
        iou = pairwise_iou(truth.gt_boxes, anchors)  # (G, R)
        best = iou.amax(dim=1)
        matches, kinds = self.head.anchor_matcher(iou[best > 0])
        if getattr(self.head, "anchor_boundary_thresh", -1) >= 0:
            kinds[~anchors.inside_box(truth.image_size, self.head.anchor_boundary_thresh)] = -1
        positive = kinds == 1
        labels = torch.full_like(matches, NOT_POSITIVE)
        labels[positive] = truth.gt_classes[best > 0][matches[positive]] if self.is_dense else 0
        return labels, best


def new_size(cfg: CfgNode, record: dict) -> tuple[int, int]:
    """Height and width that an image is resized to for testing, as Detectron2's predictor does."""
    if not record.get("height") or not record.get("width"):
        raise UserError(f"image {record.get('image_id')}: the data set gives no height and width")
    size, shortest = (record["height"], record["width"]), cfg.INPUT.MIN_SIZE_TEST
    if shortest == 0:
        return size
    return T.ResizeShortestEdge.get_output_shape(*size, shortest, cfg.INPUT.MAX_SIZE_TEST)


def truth_of(cfg: CfgNode, record: dict) -> Instances:
    """The boxes that Detectron2's mapper makes of a record, crowds and empty boxes left out."""
    size = new_size(cfg, record)
    resize = T.ResizeTransform(record["height"], record["width"], *size)
    objects = [
        {key: item[key] for key in ("bbox", "bbox_mode", "category_id")}
        for item in record.get("annotations", [])
        if not item.get("iscrowd", 0)
    ]
    moved = [transform_instance_annotations(item, resize, size) for item in objects]
    return filter_empty_instances(annotations_to_instances(moved, size))


def load_samples(cfg: CfgNode, name: str) -> list[Sample]:
    """The images of the data set `name` that have boxes."""
    if name not in DatasetCatalog:
        known = ", ".join(cfg.DATASETS.TRAIN) or "empty"
        raise UserError(f"data set {name!r} is not registered; DATASETS.TRAIN is {known}")
    with user_errors():
        samples = [Sample(record, truth_of(cfg, record)) for record in DatasetCatalog.get(name)]
    samples = [sample for sample in samples if len(sample.truth)]
    if not samples:
        raise UserError(f"data set {name!r}: no image has a box")
    return samples


def shifted(truth: Instances, x: float, y: float) -> Instances:
    """The ground truth with all boxes moved by (x, y) pixels; they may leave the image."""
    boxes = truth.gt_boxes.tensor + torch.tensor([x, y, x, y])
    return Instances(truth.image_size, gt_boxes=Boxes(boxes), gt_classes=truth.gt_classes)
