"""Training and evaluation count the same objects; what neither counts is told with its reason."""

import json
import logging

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
)
from test_datasets import VOCFolder, annotation, config, save_image, xml, xml_object

from alwa_d2.data import check_classes, register_datasets
from alwa_d2.data.boxes import OUTSIDE, fault_of_box
from alwa_d2.data.findings import ERROR, REVERSED, ZERO_AREA, left_out
from alwa_d2.data.keypoints import flip_pairs
from alwa_d2.data.preflight import NOTHING_TO_TRAIN, TOO_FEW_POINTS, check_data
from alwa_d2.engine import COCOEvaluator, Trainer
from alwa_d2.engine.voc_evaluation import VOCEvaluator

CATEGORY = {"id": 7, "name": "cat"}
POLYGON = [1, 2, 11, 2, 11, 7]


pytestmark = pytest.mark.usefixtures("catalogs")


@pytest.fixture
def coco(tmp_path):
    """Registers "c", a COCO file with one image of 40 x 30 and the objects that it is given."""
    (tmp_path / "pictures").mkdir()
    save_image(tmp_path / "pictures" / "a.jpg")

    def write(*objects, category=CATEGORY, wants=None, **more):
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
            "categories": [category],
            "annotations": objects,
        }
        (tmp_path / "c.json").write_text(json.dumps(content))
        paths = {"images": str(tmp_path / "pictures"), "annotations": str(tmp_path / "c.json")}
        register_datasets([{"name": "c", "format": "coco", **paths, **more}])
        cfg = config(["c"], ["c"], arch="AlwaGeneralizedRCNN", roi_heads=1)
        if wants:
            cfg.merge_from_list([f"MODEL.{wants}", True])
        check_classes(cfg)
        return cfg

    return write


def cat(number, box=(1, 2, 10, 5), **more):
    return annotation(number, 7, list(box), **more)


def used(tmp_path=None):
    """Boxes of "c" in training and in evaluation, which must be the same."""
    (record,) = DatasetCatalog.get("c")
    evaluator = COCOEvaluator("c", output_dir=str(tmp_path))
    boxes = [item["bbox"] for item in record["annotations"]]
    assert [item["bbox"] for item in evaluator.truth.dataset["annotations"]] == boxes
    return boxes


class TestBoxes:
    @pytest.mark.parametrize(
        "box, kind",
        [
            ((1, 1, 9, 9), None),
            ((9, 1, 1, 9), REVERSED),
            ((1, 9, 9, 1), REVERSED),
            ((5, 1, 5, 9), ZERO_AREA),
            ((5, 5, 5, 5), ZERO_AREA),
            ((1, 1, 1.5, 1.5), None),
            ((1, 1, 1 + 1e-5, 9), ZERO_AREA),
            ((40, 1, 50, 9), OUTSIDE),
            ((39, 1, 50, 9), None),
            ((-9, 1, 0, 9), OUTSIDE),
            ((1, 31, 9, 60), OUTSIDE),
        ],
    )
    def test_fault(self, box, kind):
        fault = fault_of_box(*box, size=(40, 30))
        assert (fault[0] if fault else None) == kind

    def test_sizes_that_nothing_tells(self):
        assert fault_of_box(100, 100, 200, 200) is None

    def test_voc_counts_pixels_from_1(self):
        """xmin 40 is the last pixel of 40: [39, 40] from 0. xmin 41 is outside."""
        assert fault_of_box(40, 1, 41, 9, shift=1, size=(40, 30)) is None
        assert fault_of_box(41, 1, 49, 9, shift=1, size=(40, 30))[0] == OUTSIDE

    def test_what_is_kept_is_trained_on(self):
        """Detectron2's mapper, which drops empty boxes itself, finds none."""
        for box in ((1, 1, 1.01, 9), (39.9, 1, 90, 9), (-9, -9, 0.1, 0.1)):
            assert fault_of_box(*box, size=(40, 30)) is None


class TestVOC:
    BOXES = [(1, 1, 9, 9), (9, 1, 1, 9), (5, 5, 5, 9), (60, 1, 70, 9), (9, 9, 3, 3)]

    @pytest.fixture
    def voc(self, tmp_path):
        folder = VOCFolder(tmp_path / "voc")
        folder.add("one", *(xml_object("cat", box) for box in self.BOXES))
        folder.split("train", "one\n")
        register_datasets([folder.entry("v", "train")])
        return folder

    def test_training_and_evaluation_leave_out_the_same(self, voc, caplog):
        with caplog.at_level(logging.INFO, logger="alwa_d2"):
            (record,) = DatasetCatalog.get("v")
            (truth,) = VOCEvaluator("v")._read_truths()
        assert [item["bbox"] for item in record["annotations"]] == [[0, 0, 9, 9]]
        assert truth.boxes["one"].tolist() == [[1, 1, 9, 9]]
        counts = {kind.name: number for kind, number in left_out("v").counts.items()}
        assert counts == {
            "boxes reversed": 2,
            "boxes of zero area": 1,
            "boxes outside of their image": 1,
        }
        lines = [m for m in caplog.messages if "2 boxes reversed (first: " in m]
        assert len(lines) == 2 and all(
            "object 2: 'cat': xmin 9 is above xmax 1" in m for m in lines
        )

    def test_detectron2_finds_no_other_box_to_drop(self, voc):
        cfg = get_cfg()
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (30,), "none"
        (record,) = DatasetCatalog.get("v")
        assert len(DatasetMapper(cfg, True)(record)["instances"]) == 1

    def test_pictures_without_xml(self, voc):
        save_image(voc.root / "JPEGImages" / "two.jpg")
        entry = voc.entry("w", "train")
        del entry["split"]
        register_datasets([entry])
        assert [record["image_id"] for record in DatasetCatalog.get("w")] == ["one"]
        assert "1 picture without an XML file" in left_out("w").summary()

    def test_a_picture_of_the_other_part_has_an_xml_file_however_it_is_spelt(self, voc):
        for name in ("IMG_1", "img 2", "img%203"):
            save_image(voc.root / "JPEGImages" / f"{name}.JPG")
        xml = (voc.root / "Annotations" / "one.xml").read_text()
        for name in ("img_1", "img%202", "IMG 3"):
            (voc.root / "Annotations" / f"{name}.xml").write_text(xml)
        for name, part in (("w", "first 50%"), ("x", "last 50%")):
            entry = voc.entry(name, "train") | {"part": part}
            del entry["split"]
            register_datasets([entry])
        assert sum(len(DatasetCatalog.get(name)) for name in "wx") == 4
        assert "without an XML file" not in left_out("w").summary() + left_out("x").summary()


class TestCOCO:
    def test_training_and_evaluation_leave_out_the_same(self, coco, tmp_path):
        boxes = [(1, 1, 9, 9), (9, 1, -8, 9), (5, 5, 0, 9), (60, 1, 9, 9), (5, 20, 9, -9)]
        coco(*(cat(i, box) for i, box in enumerate(boxes, 1)))
        assert used(tmp_path) == [[1, 1, 9, 9]]
        assert left_out("c").counts == {REVERSED: 2, ZERO_AREA: 1, OUTSIDE: 1}

    BAD = ([[1, 2, 11, 7]], [[]], [], None, "x", [[1, 2, 3, 4, 5]], {"counts": [1], "size": [9, 9]})

    @pytest.mark.parametrize("mask", BAD, ids=str)
    def test_a_model_of_boxes_does_not_look_at_masks(self, coco, tmp_path, mask):
        coco(cat(1, segmentation=mask), cat(2))
        assert len(used(tmp_path)) == 2

    def test_a_model_of_masks_counts_objects_that_have_one(self, coco, tmp_path):
        """Two corners are no mask; of two polygons the usable one is taken, by both."""
        coco(
            cat(1, segmentation=[POLYGON]),
            cat(2, (5, 5, 9, 9), segmentation=[[1, 2, 11, 7]]),
            cat(3, (2, 2, 9, 9), segmentation=[[1, 2, 11, 7], POLYGON]),
            cat(4, (3, 3, 9, 9)),
            wants="MASK_ON",
        )
        assert used(tmp_path) == [[1, 2, 10, 5], [2, 2, 9, 9]]
        assert left_out("c").summary().startswith("2 objects without a usable mask (first: ")
        (record,) = DatasetCatalog.get("c")
        evaluator = COCOEvaluator("c", output_dir=str(tmp_path))
        for items in (record["annotations"], evaluator.truth.dataset["annotations"]):
            assert [item["segmentation"] for item in items] == [[POLYGON]] * 2

    def test_masks_wanted_and_none_there(self, coco, tmp_path):
        coco(cat(1), cat(2, segmentation=[[1, 2, 11, 7]]), wants="MASK_ON")
        for read in (lambda: DatasetCatalog.get("c"), lambda: COCOEvaluator("c")):
            with pytest.raises(ValueError, match=r"c\.json, annotations\[0\].*MASK_ON.*2 in c"):
                read()

    def test_run_length_masks(self, coco, tmp_path):
        rle = {"counts": [30 * 40 - 30, 30], "size": [30, 40]}
        cfg = coco(cat(1, segmentation=rle), wants="MASK_ON")
        with pytest.raises(ValueError, match=r"annotations\[0\].*INPUT.MASK_FORMAT polygon"):
            DatasetCatalog.get("c")
        cfg.INPUT.MASK_FORMAT = "bitmask"
        check_classes(cfg)
        assert len(used(tmp_path)) == 1

    @pytest.mark.parametrize(
        "rle, message",
        [
            ({"counts": [9], "size": [3, 3]}, r"size must be .* its image, \[30, 40\]"),
            ({"counts": [9, 9], "size": [30, 40]}, "counts must be run lengths that fill"),
            ({"counts": 5, "size": [30, 40]}, "counts must be a list or a text"),
        ],
    )
    def test_broken_run_lengths(self, coco, rle, message):
        cfg = coco(cat(1, segmentation=rle), wants="MASK_ON")
        cfg.INPUT.MASK_FORMAT = "bitmask"
        check_classes(cfg)
        with pytest.raises(ValueError, match=message):
            DatasetCatalog.get("c")

    def test_ignore(self, coco):
        coco(cat(1, ignore=1))
        with pytest.raises(ValueError, match='"ignore" must be 0 .*iscrowd 1'):
            DatasetCatalog.get("c")

    def test_ids_that_occur_twice_whatever_the_files_name(self, coco, tmp_path):
        """Detectron2 asserts it, but not in files called minival, nor under python -O."""
        coco(cat(1), cat(1))
        register_datasets([])
        (tmp_path / "minival.json").write_bytes((tmp_path / "c.json").read_bytes())
        entry = {"format": "coco", "images": str(tmp_path / "pictures")}
        path = str(tmp_path / "minival.json")
        register_datasets([{**entry, "name": "minival", "annotations": path}])
        for name in ("c", "minival"):
            with pytest.raises(
                ValueError, match=r"annotations\[1\] of image id 1: id 1 is that of"
            ):
                DatasetCatalog.get(name)

    def test_the_name_of_two_categories(self, coco, tmp_path):
        coco(cat(1))
        content = json.loads((tmp_path / "c.json").read_text())
        content["categories"].append({"id": 0, "name": "cat"})
        (tmp_path / "d.json").write_text(json.dumps(content))
        paths = {"images": str(tmp_path / "pictures"), "annotations": str(tmp_path / "d.json")}
        with pytest.raises(ValueError, match="that differ, got 'cat' for the ids 7 and 0"):
            register_datasets([{"name": "d", "format": "coco", **paths}])


class TestNothingToTrainOn:
    """One judgement, whether the sets are looked at before a run or a loader is built of them."""

    @staticmethod
    def judged(cfg):
        """The finding's text, from both."""
        cfg.DATASETS.TEST = ()
        errors = {kind: each for kind, _, each in check_data(cfg).findings.of(ERROR)}
        kind = next(each for each in (NOTHING_TO_TRAIN, TOO_FEW_POINTS) if each in errors)
        with pytest.raises(ValueError) as error:
            Trainer.build_train_loader(cfg)
        assert str(error.value) == str(errors[kind][0])
        return str(error.value)

    def test_counts_and_reasons(self, coco):
        cfg = coco(cat(1, iscrowd=1), cat(2, iscrowd=1), cat(3, (9, 9, -3, 3)))
        text = "c: 1 image, no box that is no crowd (2 crowds; left out: 1 box reversed (first: "
        assert self.judged(cfg).startswith(text)

    @pytest.mark.parametrize("keeps_empty", [False, True])
    def test_images_with_too_few_keypoints(self, coco, keeps_empty):
        """Crowds count where images without other objects are kept, as in Detectron2."""
        category = {**CATEGORY, "keypoints": ["head", "tail"]}
        points = {"keypoints": [1, 1, 2, 2, 2, 0]}
        crowd = cat(2, keypoints=[1, 1, 2, 2, 2, 2], iscrowd=1)
        cfg = coco(cat(1, **points), crowd, category=category, wants="KEYPOINT_ON")
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 2
        cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = not keeps_empty
        cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 3
        Trainer.build_train_loader(cfg)
        cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 4
        text = "c: 1 image, none with 4 labelled keypoints, at most 3 (1 crowd; left out: nothing)"
        assert self.judged(cfg).startswith(text)
        assert "lower MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE" in self.judged(cfg)

    def test_one_object_is_enough(self, coco):
        cfg = coco(cat(1))
        cfg.DATASETS.TEST = ()
        Trainer.build_train_loader(cfg)
        assert not check_data(cfg).findings.number(ERROR)

    def test_no_data_set(self):
        message = r"DATASETS\.TRAIN: expected at least one data set .* got \(\)"
        with pytest.raises(ValueError, match=message):
            Trainer.build_train_loader(config())


class TestKeypoints:
    HAND = {**CATEGORY, "keypoints": ["wrist", "left_tip", "right_tip"]}
    POINTS = [3, 4, 2, 5, 6, 1, 0, 0, 0]

    def test_names_and_flips_of_the_file(self, coco):
        coco(cat(1, keypoints=self.POINTS), category=self.HAND, wants="KEYPOINT_ON")
        metadata = MetadataCatalog.get("c")
        assert metadata.keypoint_names == ["wrist", "left_tip", "right_tip"]
        assert metadata.keypoint_flip_map == [("left_tip", "right_tip")]
        (item,) = DatasetCatalog.get("c")[0]["annotations"]
        assert item["keypoints"] == [3.5, 4.5, 2, 5.5, 6.5, 1, 0.5, 0.5, 0]  # middles of pixels

    def test_names_and_flips_of_the_entry(self, coco):
        entry = {"keypoint_names": ["a", "b", "c"], "keypoint_flip_map": [["a", "c"]]}
        coco(cat(1, keypoints=self.POINTS), wants="KEYPOINT_ON", **entry)
        assert MetadataCatalog.get("c").keypoint_names == ["a", "b", "c"]
        assert MetadataCatalog.get("c").keypoint_flip_map == [("a", "c")]

    @pytest.mark.parametrize(
        "names, pairs",
        [
            (["nose", "left_eye", "right_eye"], [["left_eye", "right_eye"]]),
            (["LeftHand", "RightHand"], [["LeftHand", "RightHand"]]),
            (["eye-r", "eye-l"], [["eye-l", "eye-r"]]),
            (["lefteye", "righteye", "l_ear"], [["lefteye", "righteye"]]),
            (["L", "R"], [["L", "R"]]),
            (["left", "top"], []),
            (["all", "arr"], []),
        ],
    )
    def test_flips_by_names(self, names, pairs):
        assert flip_pairs(names, None) == pairs

    def test_flips_of_coco_are_those_of_detectron2(self):
        pairs = flip_pairs(list(COCO_PERSON_KEYPOINT_NAMES), None)
        assert [tuple(pair) for pair in pairs] == list(COCO_PERSON_KEYPOINT_FLIP_MAP)

    @pytest.mark.parametrize(
        "given, message",
        [
            ([["a", "x"]], r"pairs of \['a', 'b'\]"),
            ([["a", "b"], ["b", "a"]], "each name in one pair"),
            ([["a", 3]], "pairs of"),
        ],
    )
    def test_refused_flips(self, given, message):
        with pytest.raises(ValueError, match=message):
            flip_pairs(["a", "b"], given)

    def test_objects_without_keypoints_keep_their_box(self, coco, tmp_path):
        coco(cat(1), cat(2, keypoints=self.POINTS), category=self.HAND, wants="KEYPOINT_ON")
        assert len(used(tmp_path)) == 2
        (record,) = DatasetCatalog.get("c")
        assert [len(item["keypoints"]) for item in record["annotations"]] == [9, 9]
        truth = COCOEvaluator("c", output_dir=str(tmp_path)).truth.dataset["annotations"]
        assert [item["num_keypoints"] for item in truth] == [0, 2]
        assert truth[1]["keypoints"] == self.POINTS
        assert "1 object without keypoints" in left_out("c").summary()

    def test_keypoints_wanted_and_none_there(self, coco):
        coco(cat(1), cat(2), category=self.HAND, wants="KEYPOINT_ON")
        with pytest.raises(ValueError, match=r"c\.json, annotations\[0\].*KEYPOINT_ON is True"):
            DatasetCatalog.get("c")

    @pytest.mark.parametrize(
        "points, message",
        [([1, 2, 2], "3 times x, y, vis"), ([1, 2, 9] * 3, "visibility 0, 1 or 2")],
    )
    def test_refused_points(self, coco, points, message):
        coco(cat(1, keypoints=points), category=self.HAND, wants="KEYPOINT_ON")
        with pytest.raises(ValueError, match=rf"annotations\[0\] .*keypoints must be.*{message}"):
            DatasetCatalog.get("c")

    def test_a_model_of_boxes_does_not_look_at_them(self, coco, tmp_path):
        coco(cat(1, keypoints="x"), cat(2, keypoints=[1]))
        assert len(used(tmp_path)) == 2

    def test_categories_with_other_keypoints(self, coco, tmp_path):
        coco(cat(1), category=self.HAND)
        content = json.loads((tmp_path / "c.json").read_text())
        content["categories"].append({"id": 8, "name": "dog", "keypoints": ["nose"]})
        (tmp_path / "d.json").write_text(json.dumps(content))
        paths = {"images": str(tmp_path / "pictures"), "annotations": str(tmp_path / "d.json")}
        with pytest.raises(ValueError, match=r"one list of keypoints.*\['cat', 'dog'\]"):
            register_datasets([{"name": "d", "format": "coco", **paths}])


def test_the_size_of_an_image_that_the_xml_lacks_counts_too(tmp_path):
    folder = VOCFolder(tmp_path / "voc")
    folder.add("one", size=None)
    folder.annotation("one").write_text(xml(xml_object("cat", (60, 1, 70, 9)), size=None))
    folder.split("train", "one\n")
    register_datasets([folder.entry("v", "train")])
    assert DatasetCatalog.get("v")[0]["annotations"] == []
    assert not VOCEvaluator("v")._read_truths()[0].count
