"""The COCO evaluator on files as labelling tools write them."""

import json

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from alwa_d2.data import register, register_datasets
from alwa_d2.engine import COCOEvaluator, Trainer

NAME = "alwa_d2_test_coco"


@pytest.fixture
def coco(tmp_path):
    """One image with a dog, a cat and a cat of no width; without iscrowd, area and info."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    boxes = {1: (3, [20, 10, 10, 10]), 2: (7, [1, 1, 10, 10]), 3: (7, [5, 5, 0, 3])}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": category, "bbox": box}
            for i, (category, box) in boxes.items()
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    entry = {"name": NAME, "format": "coco", "images": str(tmp_path)}
    yield entry | {"annotations": str(tmp_path / "boxes.json")}
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)
    register._registered.pop(NAME, None)


@pytest.mark.parametrize("classes", [["cat", "dog"], ["dog", "cat"]])
def test_per_class_ap_goes_by_the_names(coco, tmp_path, classes):
    """The only detection is the cat: found in full, once the box without width is left out."""
    register_datasets([coco | {"classes": classes}])
    evaluator = COCOEvaluator(NAME, output_dir=str(tmp_path))
    evaluator.reset()
    found = Instances((30, 40))
    found.pred_boxes = Boxes(torch.tensor([[1.0, 1, 11, 11]]))
    found.scores = torch.tensor([0.9])
    found.pred_classes = torch.tensor([classes.index("cat")])
    evaluator.process([{"image_id": 1}], [{"instances": found}])
    result = evaluator.evaluate()["bbox"]
    assert result["AP-cat"] == pytest.approx(100) and result["AP-dog"] == 0
    assert result["AP"] == pytest.approx(50)


def test_the_trainer_takes_it_for_coco_sets(coco, tmp_path):
    register_datasets([coco])
    assert MetadataCatalog.get(NAME).evaluator_type == "coco"

    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    assert type(Trainer.build_evaluator(cfg, NAME)) is COCOEvaluator
