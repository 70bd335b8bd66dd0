"""The COCO evaluator on files as labelling tools write them."""

import json
import math

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances
from PIL import Image

from alwa_d2.data import register, register_datasets
from alwa_d2.data.coco_file import read_header
from alwa_d2.data.needs import note_needs
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
    note_needs(get_cfg(), [NAME])


def evaluate(found, tmp_path, images=(1,), **options):
    """Scores of detections, (class number, XYXY box) each, in every one of `images`."""
    evaluator = COCOEvaluator(NAME, output_dir=str(tmp_path), **options)
    evaluator.reset()
    instances = Instances((30, 40))
    instances.pred_boxes = Boxes(torch.tensor([box for _, box in found]).reshape(-1, 4))
    instances.scores = torch.linspace(0.9, 0.5, len(found))
    instances.pred_classes = torch.tensor([number for number, _ in found], dtype=torch.long)
    for image_id in images:
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()


def change(coco, **parts):
    """Puts other parts into the entry's file."""
    content = json.loads(open(coco["annotations"]).read())
    with open(coco["annotations"], "w") as file:
        json.dump(content | parts, file)
    read_header.cache_clear()


def test_a_set_registered_in_python_may_name_its_images_by_any_path(coco, tmp_path):
    """The evaluation opens none of them; Detectron2's own conversion writes whole paths."""
    image = json.loads(open(coco["annotations"]).read())["images"][0]
    change(coco, images=[image | {"file_name": str(tmp_path / "a.jpg")}])
    register_coco_instances(NAME, {}, coco["annotations"], "")
    assert len(DatasetCatalog.get(NAME)) == 1
    assert evaluate([(1, [1.0, 1, 11, 11])], tmp_path)["bbox"]["AP"] == pytest.approx(50)
    with pytest.raises(ValueError, match="a path below the folder of images"):
        register_datasets([coco | {"name": "alwa_d2_test_other"}])


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


class TestNothingDetected:
    """Detectron2 gives NaN, by which a run that finds nothing is left out of a sweep's mean."""

    def test_ap_is_0_where_there_are_objects(self, coco, tmp_path):
        register_datasets([coco])
        result = evaluate([], tmp_path)["bbox"]
        for key in ("AP", "AP50", "AP75", "APs", "AP-cat", "AP-dog"):
            assert result[key] == 0
        assert math.isnan(result["APm"]) and math.isnan(result["APl"])  # there are small ones alone

    def test_the_same_keys_as_with_detections(self, coco, tmp_path):
        register_datasets([coco])
        some = evaluate([(0, [1.0, 1, 5, 5])], tmp_path)["bbox"]
        none = evaluate([], tmp_path)["bbox"]
        assert list(some) == list(none) and some["AP"] == none["AP"] == 0

    def test_a_class_without_objects_stays_nan(self, coco, tmp_path):
        register_datasets([coco | {"classes": ["cat", "dog", "emu"]}])
        result = evaluate([], tmp_path)["bbox"]
        assert result["AP"] == 0 and math.isnan(result["AP-emu"])

    def test_no_objects_at_all(self, coco, tmp_path):
        change(coco, annotations=[])
        register_datasets([coco])
        assert math.isnan(evaluate([], tmp_path)["bbox"]["AP"])

    def test_masks_and_keypoints_are_scored_too(self, coco, tmp_path):
        shapes = {"segmentation": [[1, 1, 11, 1, 11, 11]], "keypoints": [3, 3, 2, 9, 9, 2]}
        box = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 10, 10]}
        categories = [{"id": 7, "name": "cat", "keypoints": ["head", "tail"]}]
        change(coco, annotations=[box | shapes], categories=categories)
        register_datasets([coco])
        cfg = get_cfg()
        cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = True
        note_needs(cfg, [NAME])
        scores = evaluate([], tmp_path, kpt_oks_sigmas=[0.05, 0.05])
        expected = {"bbox": 0, "segm": 0, "keypoints": 0}
        assert {task: values["AP"] for task, values in scores.items()} == expected


@pytest.mark.parametrize("area", [{}, {"area": 0}, {"area": 0.0}, {"area": None}])
def test_areas_that_a_tool_has_not_computed(coco, tmp_path, area):
    """A box of 36 x 29 = 1044 pixels is of medium size for COCO (from 32 x 32 = 1024 on)."""
    item = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 1, 36, 29]}
    change(coco, annotations=[item | area])
    register_datasets([coco])
    result = evaluate([(1, [2.0, 1, 38, 30])], tmp_path)["bbox"]
    assert result["APm"] == pytest.approx(100) and math.isnan(result["APs"])


def test_areas_of_masks_stay(coco, tmp_path):
    """COCO's sizes go by the mask's area, here 500 of 1044 pixels."""
    item = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 1, 36, 29], "area": 500}
    change(coco, annotations=[item])
    register_datasets([coco])
    result = evaluate([(1, [2.0, 1, 38, 30])], tmp_path)["bbox"]
    assert result["APs"] == pytest.approx(100) and math.isnan(result["APm"])


def test_a_class_that_the_file_lacks(coco, tmp_path):
    """Its detections change nothing, and it has no AP of its own."""
    register_datasets([coco | {"classes": ["emu", "cat", "dog"]}])
    found = [(0, [3.0, 3, 9, 9]), (1, [1.0, 1, 11, 11]), (2, [20.0, 10, 30, 20])]
    result = evaluate(found, tmp_path)["bbox"]
    assert result["AP"] == result["AP-cat"] == result["AP-dog"] == pytest.approx(100)
    assert math.isnan(result["AP-emu"])


def test_a_part_is_evaluated_on_its_images_alone(coco, tmp_path):
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in range(1, 5)]
    boxes = [{"image_id": i, "id": i, "category_id": 7, "bbox": [1, 1, 9, 9]} for i in range(1, 5)]
    change(coco, images=images, annotations=boxes)
    for image in images:
        Image.new("RGB", (40, 30)).save(tmp_path / image["file_name"])
    register_datasets([coco | {"part": "last 25%"}])
    (record,) = DatasetCatalog.get(NAME)
    result = evaluate([(1, [1.0, 1, 10, 10])], tmp_path, images=[record["image_id"]])["bbox"]
    assert result["AP-cat"] == pytest.approx(100)


def test_byte_order_mark(coco, tmp_path):
    with open(coco["annotations"], "rb+") as file:
        content = file.read()
        file.seek(0)
        file.write(b"\xef\xbb\xbf" + content)
    register_datasets([coco])
    assert evaluate([(1, [1.0, 1, 11, 11])], tmp_path)["bbox"]["AP-cat"] == pytest.approx(100)
