"""A trained detector's detections on the images of a data set, with their ground truth."""

from dataclasses import replace

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, BoxMode, Instances

from ..engine import Checkpointer
from ..errors import UserError, user_errors
from .images import progress, spread
from .matching import Sample


def truth_of(record: dict, size: tuple[int, int]) -> Instances:
    """The boxes of a data set's record, crowds left out."""
    objects = [item for item in record.get("annotations", []) if not item.get("iscrowd", 0)]
    boxes = [BoxMode.convert(o["bbox"], o["bbox_mode"], BoxMode.XYXY_ABS) for o in objects]
    classes = torch.tensor([o["category_id"] for o in objects], dtype=torch.int64)
    return Instances(size, gt_boxes=Boxes(torch.tensor(boxes)), gt_classes=classes)


def load_samples(
    cfg: CfgNode, name: str, count: int, score: float, whole: bool = False
) -> list[Sample]:
    """`count` images of a data set with the model's detections of at least `score`.

    If `whole`, all images' detections are there, but pixels of `count` of them only: (0, 0, 3).
    """
    if name not in DatasetCatalog:
        known = ", ".join(cfg.DATASETS.TEST) or "empty"
        raise UserError(f"data set {name!r} is not registered; DATASETS.TEST is {known}")
    with user_errors():
        predictor = load_predictor(cfg)
        records = DatasetCatalog.get(name)
    chosen = spread(len(records), count)
    samples = []
    for index in progress(range(len(records)) if whole else chosen):
        sample = detect(predictor, records[index], score)
        if index not in chosen:
            sample = replace(sample, image=sample.image[:0, :0].copy())
        samples.append(sample)
    return samples


def load_predictor(cfg: CfgNode) -> DefaultPredictor:
    """Detectron2's predictor with the weights of MODEL.WEIGHTS, all of which have to be there."""
    empty = cfg.clone()
    empty.defrost()
    empty.MODEL.WEIGHTS = ""
    predictor = DefaultPredictor(empty)
    Checkpointer(predictor.model).load_all_weights(cfg.MODEL.WEIGHTS)
    return predictor


def detect(predictor, record: dict, score: float) -> Sample:
    """One record's image, ground truth and detections."""
    image = read_image(record["file_name"], "BGR")  # what the predictor takes
    found = predictor(image)["instances"].to("cpu")
    found = found[found.scores >= score]
    truth = truth_of(record, image.shape[:2])
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    return Sample(str(record["image_id"]), rgb, truth, found)
