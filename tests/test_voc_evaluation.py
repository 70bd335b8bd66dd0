"""VOC average precision: worked values, parity with Detectron2's evaluator, tolerant input."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from alwa_d2.data import load_voc
from alwa_d2.engine.voc_evaluation import VOCEvaluator

CLASSES = ["ant", "bee", "cow"]
SIDE = 100  # pixels


@dataclass
class Case:
    """A VOC set's annotations (no images: evaluation needs none) and predictions for it."""

    root: Path
    name: str = "case"
    objects: dict = field(default_factory=dict)  # image id -> [(class, box of the file, difficult)]
    found: dict = field(default_factory=dict)  # image id -> [(class number, score, XYXY box)]

    def write(self, optional_tags=True, **metadata):
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for image_id, objects in self.objects.items():
            text = "".join(self.xml(*each, optional_tags) for each in objects)
            path = self.root / "Annotations" / f"{image_id}.xml"
            path.write_text(f"<annotation>{text}</annotation>")
        ids = "".join(f"{image_id}\n" for image_id in self.objects)
        (self.root / "ImageSets/Main/test.txt").write_bytes(ids.encode(errors="surrogateescape"))
        given = {"dirname": str(self.root), "split": "test", "thing_classes": CLASSES, **metadata}
        MetadataCatalog.get(self.name).set(**given)
        return self

    @staticmethod
    def xml(name, box, difficult, optional_tags):
        tags = zip(("xmin", "ymin", "xmax", "ymax"), box)
        numbers = "".join(f"<{tag}>{number}</{tag}>" for tag, number in tags)
        more = f"<difficult>{int(difficult)}</difficult>" if optional_tags or difficult else ""
        more += "<pose>Left</pose><truncated>0</truncated>" if optional_tags else ""
        return f"<object><name>{name}</name>{more}<bndbox>{numbers}</bndbox></object>"

    def process(self, evaluator, image_ids=None):
        evaluator.reset()
        for image_id in self.found if image_ids is None else image_ids:
            found = self.found[image_id]
            instances = Instances((SIDE, SIDE))
            instances.pred_classes = torch.tensor([f[0] for f in found], dtype=torch.long)
            instances.scores = torch.tensor([f[1] for f in found])
            boxes = torch.tensor([f[2] for f in found]).reshape(-1, 4)
            instances.pred_boxes = Boxes(boxes)
            evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        return evaluator

    def evaluate(self, kind=VOCEvaluator):
        return self.process(kind(self.name)).evaluate()["bbox"]


@pytest.fixture
def case(tmp_path):
    yield Case(tmp_path / "voc")
    MetadataCatalog.pop("case", None)


def seen(box):
    """The prediction that equals a box of the file."""
    return (box[0] - 1, box[1] - 1, box[2], box[3])


def random_case(case, seed, images=14):
    """Objects, a fifth difficult, each found about once nearby, with equal scores, and errors."""
    rng = np.random.default_rng(seed)
    for number in range(images):
        objects, found = [], []
        for _ in range(rng.integers(0, 7)):
            low = rng.integers(1, 60, 2)
            box = (*low.tolist(), *(low + rng.integers(1, 40, 2)).tolist())
            label = int(rng.integers(0, 3))
            objects.append((CLASSES[label], box, rng.random() < 0.2))
            for _ in range(rng.integers(0, 4)):
                label = label if rng.random() < 0.8 else int(rng.integers(0, 3))
                near = np.array(seen(box)) + rng.normal(0, 2, 4)
                found.append((label, round(float(rng.random()), 2), tuple(map(float, near))))
        case.objects[f"image_{number}"] = objects
        case.found[f"image_{number}"] = found
    return case


class TestWorkedValues:
    BOX = (11, 11, 30, 30)  # 20 x 20 pixels

    def test_all_found(self, case):
        case.objects = {"a": [("ant", self.BOX, False)], "b": [("bee", self.BOX, False)]}
        case.found = {"a": [(0, 0.9, seen(self.BOX))], "b": [(1, 0.8, seen(self.BOX))]}
        result = case.write().evaluate()
        assert (result["AP"], result["AP50"], result["AP75"]) == (100, 100, 100)
        assert result["AP-ant"] == result["AP50-bee"] == result["AP75-bee"] == 100

    def test_by_hand(self, case, caplog):
        # ant: two objects. Best score: wrong place. Second: IoU 20·16 / 20·20 = 0.8 with the
        # first, so right up to the threshold 0.75. Precision 1/2 at recall 1/2: AP 25 % at six
        # thresholds of ten, 0.8 not being above 0.8. bee: not found, 0. cow: no object, left out.
        case.objects = {
            "a": [("ant", self.BOX, False), ("bee", self.BOX, False)],
            "b": [("ant", self.BOX, False)],
        }
        short = seen((11, 11, 30, 26))
        case.found = {"a": [(0, 0.9, seen((61, 61, 80, 80))), (0, 0.5, short)], "b": []}
        result = case.write().evaluate()
        assert result["AP50-ant"] == result["AP75-ant"] == pytest.approx(25)
        assert result["AP-ant"] == pytest.approx(25 * 6 / 10)
        assert result["AP-bee"] == result["AP50-bee"] == 0
        assert math.isnan(result["AP-cow"]) and math.isnan(result["AP50-cow"])
        assert result["AP50"] == result["AP75"] == pytest.approx((25 + 0) / 2)
        assert result["AP"] == pytest.approx((25 * 6 / 10 + 0) / 2)
        (line,) = [m for m in caplog.messages if "left out" in m]
        assert line == "case: no object to be found of cow; left out of the means"

    def test_found_twice_counts_once(self, case):
        case.objects = {"a": [("ant", self.BOX, False), ("ant", (61, 61, 80, 80), False)]}
        first, second = seen(self.BOX), seen((61, 61, 80, 80))
        case.found = {"a": [(0, 0.9, first), (0, 0.8, first), (0, 0.7, second)]}
        # Precision 1 at recall 1/2, then 2/3 at recall 1.
        assert case.write().evaluate()["AP50-ant"] == pytest.approx(50 + 50 * 2 / 3)

    def test_difficult_is_neither_right_nor_wrong(self, case):
        other = (61, 61, 80, 80)
        case.objects = {"a": [("ant", self.BOX, False), ("ant", other, True)]}
        case.found = {"a": [(0, 0.9, seen(other)), (0, 0.8, seen(self.BOX))]}
        assert case.write().evaluate()["AP-ant"] == 100

    def test_2007_metric(self, case):
        case.objects = {"a": [("ant", self.BOX, False), ("ant", (61, 61, 80, 80), False)]}
        case.found = {"a": [(0, 0.9, seen(self.BOX))]}
        # Recall 0.0, 0.1, ... 0.5 of 1.0 at precision 1: six of eleven points.
        assert case.write(year=2007).evaluate()["AP50-ant"] == pytest.approx(100 * 6 / 11)

    def test_table(self, case, caplog):
        case.objects = {"a": [(name, self.BOX, False) for name in CLASSES]}
        case.found = {"a": [(0, 0.9, seen(self.BOX))]}
        with caplog.at_level(logging.INFO, logger="alwa_d2"):
            case.write().evaluate()
        (table,) = [m for m in caplog.messages if "Per-category" in m]
        (row,) = [line for line in table.splitlines() if "ant" in line]
        assert [word.strip() for word in row.split("|")[1:-1]] == ["ant"] + 3 * ["100.000"]


class TestParity:
    @pytest.mark.parametrize("year", [2007, 2012])
    @pytest.mark.parametrize("seed", range(3))
    def test_equals_detectron2(self, case, year, seed):
        random_case(case, seed).write(year=year)
        ours, theirs = case.evaluate(), case.evaluate(PascalVOCDetectionEvaluator)
        assert 5 < theirs["AP"] < 95
        for key in ("AP", "AP50", "AP75"):
            assert ours[key] == pytest.approx(theirs[key], rel=0, abs=1e-9)
        means = [ours[f"AP-{name}"] for name in CLASSES]
        assert np.mean(means) == pytest.approx(ours["AP"], rel=1e-12)

    def test_on_real_annotations(self, case, bccd):
        names = ["Platelets", "RBC", "WBC"]
        # This split has no box of zero area, which Detectron2 would count.
        rng = np.random.default_rng(0)
        for record in load_voc(str(bccd), "test", names):
            case.found[record["image_id"]] = [
                (x["category_id"], float(rng.random()), (np.array(x["bbox"]) + near).tolist())
                for x, near in zip(record["annotations"], rng.normal(0, 6, (1000, 4)))
            ]
        metadata = {"dirname": str(bccd), "split": "test", "thing_classes": names, "year": 2012}
        MetadataCatalog.get("case").set(**metadata)
        ours, theirs = case.evaluate(), case.evaluate(PascalVOCDetectionEvaluator)
        assert sorted(k for k in ours if k.startswith("AP50-")) == [f"AP50-{n}" for n in names]
        assert 20 < ours["AP50"] < 100
        for key in ("AP", "AP50", "AP75"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-9)

    def test_two_processes(self, case, monkeypatch):
        random_case(case, 5).write(year=2012)
        ids = list(case.found)
        whole = case.evaluate()
        ranks = [case.process(VOCEvaluator("case"), part) for part in (ids[:5], ids[5:])]
        parts = [dict(rank._predictions) for rank in ranks]
        monkeypatch.setattr(comm, "gather", lambda data, dst: parts)
        assert ranks[0].evaluate()["bbox"] == pytest.approx(whole, rel=1e-12)
        monkeypatch.setattr(comm, "gather", lambda data, dst: [])
        monkeypatch.setattr(comm, "is_main_process", lambda: False)
        assert ranks[1].evaluate() is None


class TestTolerance:
    def test_without_optional_tags_and_year(self, case, tmp_path):
        random_case(case, 1).write(optional_tags=False)
        ours = case.evaluate()
        other = random_case(Case(tmp_path / "with", "other"), 1).write(year=2012)
        try:
            theirs = other.evaluate(PascalVOCDetectionEvaluator)
            assert {key: ours[key] for key in theirs} == pytest.approx(theirs, rel=0, abs=1e-9)
        finally:
            MetadataCatalog.pop("other")

    @pytest.mark.parametrize("image_id", ["my cat 1", "50%", "Katze ü", "a+b", "12"])
    def test_image_ids(self, case, image_id):
        case.objects = {image_id: [("ant", (11, 11, 30, 30), False)], "other": []}
        case.found = {image_id: [(0, 0.9, seen((11, 11, 30, 30)))]}
        assert case.write().evaluate()["AP-ant"] == 100

    def test_float_coordinates(self, case):
        box = (11.5, 11.25, 30.5, 30)
        case.objects = {"a": [("ant", box, False)]}
        case.found = {"a": [(0, 0.9, seen(box))]}
        assert case.write().evaluate()["AP-ant"] == 100

    def test_boxes_of_zero_area_are_not_to_be_found(self, case):
        box = (11, 11, 30, 30)
        case.objects = {"a": [("ant", box, False), ("ant", (50, 50, 50, 70), False)]}
        case.found = {"a": [(0, 0.9, seen(box))]}
        assert case.write().evaluate()["AP-ant"] == 100

    def test_classes_without_objects_keep_the_rest(self, case):
        box = (11, 11, 30, 30)
        # bee is there only as difficult, cow not at all.
        case.objects = {"a": [("ant", box, False), ("bee", box, True)]}
        case.found = {"a": [(0, 0.9, seen(box)), (1, 0.9, seen(box)), (2, 0.9, seen(box))]}
        result = case.write().evaluate()
        assert result["AP"] == 100
        assert math.isnan(result["AP-bee"]) and math.isnan(result["AP-cow"])

    def test_nothing_to_be_found(self, case, caplog):
        case.objects = {"a": []}
        case.found = {"a": [(0, 0.9, (1.0, 1.0, 5.0, 5.0))]}
        result = case.write().evaluate()
        assert len(result) == 3 + 3 * len(CLASSES) and all(map(math.isnan, result.values()))
        assert "no class has an object to be found, so AP is NaN" in caplog.text

    def test_no_predictions(self, case):
        case.objects = {"a": [("ant", (11, 11, 30, 30), False)]}
        case.found = {"a": []}
        assert case.write().evaluate()["AP"] == 0

    def test_images_without_objects_make_errors(self, case):
        box = (11, 11, 30, 30)
        case.objects = {"a": [("ant", box, False)], "b": []}
        case.found = {"a": [(0, 0.5, seen(box))], "b": [(0, 0.9, seen(box))]}
        assert case.write().evaluate()["AP50-ant"] == pytest.approx(50)

    def test_needs_no_folder_before_evaluate(self, case):
        metadata = {"dirname": str(case.root), "split": "test", "thing_classes": CLASSES}
        MetadataCatalog.get("case").set(**metadata)
        evaluator = VOCEvaluator("case")
        case.objects = {"a": [("ant", (11, 11, 30, 30), False)]}
        case.write()
        assert evaluator.evaluate()["bbox"]["AP"] == 0

    def test_refused_year(self, case):
        case.write(year=2010)
        with pytest.raises(ValueError, match="case: year must be 2007 or 2012, got 2010"):
            VOCEvaluator("case")

    def test_broken_annotation(self, case):
        case.objects = {"a": []}
        case.write()
        (case.root / "Annotations" / "a.xml").write_text("<annotation>")
        with pytest.raises(ValueError, match=r"a\.xml: broken XML"):
            case.evaluate()


def test_file_names_that_are_no_utf8(case):
    """As from an archive made in another encoding."""
    box = (11, 11, 40, 40)
    case.objects = {name: [("ant", box, False)] for name in ("n\udce9", "n\xe9", "a b%20c")}
    case.found = {name: [(0, 0.9, seen(box))] for name in case.objects}
    assert case.write().evaluate()["AP"] == pytest.approx(100)
