"""A trained detector's detections on the images of a data set, with their ground truth."""

from collections.abc import Callable
from dataclasses import replace

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, BoxMode, Instances

from ..engine import Checkpointer
from ..errors import UserError, user_errors
from .images import progress, read, spread
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
        predict = load_predictor(cfg)
        records = DatasetCatalog.get(name)
    chosen = spread(len(records), count)
    samples = []
    for index in progress(range(len(records)) if whole else chosen):
        sample = detect(predict, records[index], score)
        if index not in chosen:
            sample = replace(sample, image=sample.image[:0, :0].copy())
        samples.append(sample)
    return samples


def load_predictor(cfg: CfgNode) -> Callable[[str], Instances]:
    """
    What finds the objects of an image file: boxes in the image's own pixels, tensors on the CPU.

    Detectron2's `DefaultPredictor` does the same for images of three channels alone.

    Raises:
        UserError: `MODEL.WEIGHTS` lacks some of the model's, or cannot be read
    """
    model = build_model(cfg).eval()
    Checkpointer(model).load_all_weights(cfg.MODEL.WEIGHTS)
    sizes = [cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MIN_SIZE_TEST]
    resize = T.ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TEST)

    @torch.no_grad()
    def predict(path: str) -> Instances:
        image = read(path, cfg.INPUT.FORMAT)
        height, width = image.shape[:2]
        resized = resize.get_transform(image).apply_image(image)
        pixels = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        found = model([{"image": pixels, "height": height, "width": width}])[0]["instances"]
        return found.to("cpu")

    return predict


def detect(predict: Callable[[str], Instances], record: dict, score: float) -> Sample:
    """One record's image, ground truth and detections."""
    found = predict(record["file_name"])
    found = found[found.scores >= score]
    image = read(record["file_name"], "RGB")
    return Sample(str(record["image_id"]), image, truth_of(record, image.shape[:2]), found)
