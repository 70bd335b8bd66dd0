"""All data sets of a config, looked at: what is counted, found, printed and drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image
from test_image_headers import deep_png

from alwa_d2 import add_alwa_config
from alwa_d2.analysis.data_page import page
from alwa_d2.analysis.data_picture import draw
from alwa_d2.cli.main import main
from alwa_d2.data import box_checks, deep_colour, image_headers, model_needs, preflight
from alwa_d2.data.boxes import OUTSIDE
from alwa_d2.data.findings import (
    ERROR,
    MISSING_IMAGE,
    REVERSED,
    WARNING,
    ZERO_AREA,
    Findings,
    note_left_out,
)
from alwa_d2.data.preflight import check_data

SIZE = (64, 48)  # pixels, of all images unless said otherwise


pytestmark = pytest.mark.usefixtures("catalogs")


class Set:
    """A data set of images that grows by `add`, registered as `name` with classes cat and dog."""

    def __init__(self, folder, name, **metadata):
        self.folder, self.name, self.records = folder, name, []
        DatasetCatalog.register(name, lambda: self.records)
        metadata = {"thing_classes": ["cat", "dog"], "evaluator_type": "coco"} | metadata
        MetadataCatalog.get(name).set(**metadata)

    def add(self, file, *boxes, size=SIZE, annotated=SIZE, mode=BoxMode.XYXY_ABS, **more):
        """An image with the boxes (class, four numbers); `size` None for one that is there."""
        path = self.folder / file
        if size is not None:
            path.parent.mkdir(exist_ok=True)
            # Noise of its own: no two files have the same content.
            noise = np.random.default_rng(list(str(path).encode())).integers(0, 255, (*size, 3))
            Image.fromarray(noise.astype(np.uint8).swapaxes(0, 1)).save(path)
        record = {"file_name": str(path), "image_id": len(self.records)}
        record |= dict(zip(("width", "height"), annotated)) if annotated else {}
        record["annotations"] = [
            {"category_id": number, "bbox": list(box), "bbox_mode": mode, **more}
            for number, box in boxes
        ]
        self.records.append(record)
        return path


@pytest.fixture
def train(tmp_path):
    """Two images: a cat, and a cat and a dog; all as it should be."""
    data = Set(tmp_path / "train", "check_train")
    data.add("one.png", (0, (4, 4, 20, 20)))
    data.add("two.png", (0, (0, 0, 10, 40)), (1, (10, 10, 60, 44)))
    return data


@pytest.fixture
def test(tmp_path):
    """One image with a dog."""
    data = Set(tmp_path / "test", "check_test")
    data.add("three.png", (1, (5, 5, 30, 30)))
    return data


@pytest.fixture
def cfg(train, test):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (train.name,), (test.name,)
    cfg.MODEL.MASK_ON = False
    return cfg


def counts(report):
    """Kind -> number."""
    return report.findings.counts


def first(report, kind):
    """File's last part, object and text of the first finding of a kind."""
    finding = report.findings.first[kind][0]
    return finding.file.rpartition("/")[2], finding.object, finding.found


def test_counts(cfg, train):
    train.add("empty.png")
    train.add("crowd.png", (0, (0, 0, 30, 30)), iscrowd=1)
    report = check_data(cfg)
    (survey,), (other,) = report.training, report.test
    assert (survey.images, survey.empty, survey.boxes, survey.crowds) == (4, 2, 3, 1)
    assert survey.counts.tolist() == [2, 1] and other.counts.tolist() == [0, 1]
    assert survey.image_sizes.tolist() == [list(SIZE)] * 4
    assert survey.box_sizes.tolist() == [[16, 16], [10, 40], [50, 34]]
    assert counts(report) == {}
    assert report.classes == ["cat", "dog"]


def test_test_sets_alone(cfg):
    report = check_data(cfg, training=False)
    assert report.training == [] and [survey.name for survey in report.test] == ["check_test"]
    assert counts(report) == {}


def test_boxes(cfg, train):
    boxes = {
        REVERSED: (20, 4, 10, 20),
        ZERO_AREA: (20, 4, 20, 30),
        box_checks.TINY: (20, 4, 21.5, 30),
        box_checks.BEYOND: (60, 40, 65.5, 46),
        OUTSIDE: (64, 10, 80, 40),
    }
    for index, box in enumerate(boxes.values()):
        train.add(f"{index}.png", (1, box))
    for index in range(20):  # so that it is no habit
        train.add(f"right{index}.png", (1, (60, 40, 65, 48)))  # one pixel over: rounding
    report = check_data(cfg)
    assert counts(report) == dict.fromkeys(boxes, 1)
    expected = ("3.png", "object 1 (dog)", "[60, 40, 65.5, 46] in 64 x 48")
    assert first(report, box_checks.BEYOND) == expected
    assert all(kind.severity == WARNING for kind in boxes)


def test_boxes_as_width_and_height_are_looked_at_as_corners(cfg, train):
    train.add("wide.png", (1, (30, 10, 40, 20)), mode=BoxMode.XYWH_ABS)
    report = check_data(cfg)
    assert first(report, box_checks.BEYOND)[2] == "[30, 10, 70, 30] in 64 x 48"
    assert report.training[0].box_sizes[-1].tolist() == [40, 20]


def test_class_numbers_without_a_class(cfg, train):
    train.add("a.png", (2, (0, 0, 30, 30)))
    report = check_data(cfg)
    assert counts(report) == {box_checks.BAD_CLASS: 1}
    assert first(report, box_checks.BAD_CLASS)[1] == "object 1 (class 2)"


def guesses(rows, frame=SIZE, as_extents=False, reversed_boxes=0):
    corners = np.array(rows, float).reshape(-1, 4)
    if as_extents:
        corners[:, 2:] += corners[:, :2]
    each = np.arange(len(corners))
    frames = np.tile(np.array(frame, float), (len(corners), 1))
    boxes = box_checks.Boxes(corners, each, each < 0, each, each, frames, as_extents)
    findings = Findings()
    box_checks.check_coordinates(boxes, "a set", reversed_boxes, findings)
    return [each.found for each in findings.first.get(box_checks.COORDINATES, [])]


@pytest.mark.parametrize(
    "words, rows, more",
    [
        ("from 0 to 1", [(0.2, 0.3, 0.5, 0.9)], {}),
        ("from 0 to 1", [(-0.8, -0.7, 0.5, 0.9)], {}),  # VOC's reader takes 1 away
        ("from 0 to 1", [(0.7, 0.7, 0.5, 0.5)], {"as_extents": True}),  # middle, width, height
        ("within 0..100", [(10, 20, 30, 40)] * 20, {"frame": (640, 480)}),
        ("xmax and ymax", [(30, 20, 60, 44)] * 4, {"as_extents": True}),
        ("the box's middle", [(50, 30, 28, 30), (10, 10, 20, 20)], {"as_extents": True}),
        ("rows and columns", [(10, 40, 40, 60)] * 4, {}),
        ("another size", [(100, 100, 200, 200), (1, 1, 9, 9)], {}),
        ("end before they begin", [(1, 1, 9, 9)], {"reversed_boxes": 2}),
    ],
)
def test_coordinates_that_look_like_something_else(words, rows, more):
    (text,) = guesses(rows, **more)
    assert words in text


@pytest.mark.parametrize(
    "rows, more",
    [
        ([(10, 20, 30, 40)] * 20, {}),  # the image is no larger than 100 pixels
        ([(10, 20, 30, 40)] * 19, {"frame": (640, 480)}),  # few
        ([(30, 20, 30, 20)] * 4, {"as_extents": True}),
        ([(1, 1, 9, 9)] * 10 + [(60, 40, 70, 46)], {}),  # one in eleven stands over
        ([(1, 1, 9, 9)] * 10, {"reversed_boxes": 4}),
        ([], {}),
    ],
)
def test_coordinates_that_are_as_they_should_be(rows, more):
    assert guesses(rows, **more) == []


def test_images(cfg, train):
    train.add("size.png", (0, (0, 0, 9, 9)), size=(50, 48))
    train.add("missing.png", (0, (0, 0, 9, 9)), size=None)
    train.add("unknown.png", (0, (0, 0, 9, 9)), size=(30, 20), annotated=None)
    report = check_data(cfg)
    assert counts(report) == {preflight.OTHER_SIZE: 1, MISSING_IMAGE: 1}
    expected = ("size.png", "", "64 x 48 annotated, 50 x 48 read")
    assert first(report, preflight.OTHER_SIZE) == expected
    assert report.training[0].image_sizes[-1].tolist() == [30, 20]
    assert report.findings.number(ERROR) == 2


def turn(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)


def test_images_turned_by_exif(cfg, train):
    turn(train.add("half.png", (0, (0, 0, 9, 9))), 3)
    turn(train.add("quarter.png", (0, (0, 0, 9, 9))), 6)  # annotated as it is stored
    turn(train.add("right.png", (0, (0, 0, 9, 9)), annotated=SIZE[::-1]), 8)
    report = check_data(cfg)
    assert counts(report) == {preflight.TURNED: 2, preflight.STORED_SIZE: 1}
    expected = ("quarter.png", "", "64 x 48 annotated, 48 x 64 read")
    assert first(report, preflight.STORED_SIZE) == expected
    assert preflight.STORED_SIZE.severity == ERROR and preflight.TURNED.severity == WARNING


def test_one_image_twice(cfg, train):
    path = train.add("a.png", (0, (0, 0, 9, 9)))
    train.add("a.png", (1, (0, 0, 9, 9)), size=None)  # another id
    train.add("b.png", (1, (0, 0, 9, 9)), size=None).hardlink_to(path)
    train.add("c.png", (1, (0, 0, 9, 9)), size=None).write_bytes(path.read_bytes())
    report = check_data(cfg)
    assert counts(report) == {preflight.TWICE: 2}
    expected = ("a.png", "image id 3", f"the same as {path}, image id 2")
    assert first(report, preflight.TWICE) == expected
    assert counts(check_data(cfg, decode=True)) == {preflight.TWICE: 3}


def test_names_that_differ_in_case_or_unicode_form(cfg, train):
    for name in ("Zu\u0308rich.png", "Z\u00fcrich.png", "A.png", "a.png", "b.png"):
        train.add(name, (0, (0, 0, 9, 9)))
    report = check_data(cfg)
    assert counts(report) == {preflight.ALIKE: 2}
    assert first(report, preflight.ALIKE)[0] == "Z\u00fcrich.png"


def test_images_in_training_and_test(cfg, train, test):
    path = test.add("again.png", (0, (0, 0, 9, 9)), size=None)
    path.symlink_to(train.records[0]["file_name"])
    report = check_data(cfg)
    assert counts(report) == {preflight.SHARED: 1}
    assert first(report, preflight.SHARED)[2] == "in check_test; also in check_train"


def test_images_in_two_training_sets(cfg, tmp_path, train):
    other = Set(tmp_path / "train", "check_other")
    other.add("one.png", (0, (4, 4, 20, 20)), size=None)
    cfg.DATASETS.TRAIN += (other.name,)
    assert counts(check_data(cfg)) == {preflight.TWICE: 1}


def test_classes_that_training_lacks(cfg, train):
    del train.records[1]["annotations"][1]
    report = check_data(cfg)
    assert counts(report) == {preflight.UNTRAINED: 1}
    expected = ("check_train", "class 1 (dog)", "1 box in test, none in training")
    assert first(report, preflight.UNTRAINED) == expected


def test_no_box_at_all(cfg, train, test):
    for record in train.records + test.records:
        record["annotations"] = [dict(each, iscrowd=1) for each in record["annotations"]]
    report = check_data(cfg)
    assert counts(report) == {preflight.NOTHING_TO_TRAIN: 1, preflight.NOTHING_TO_TEST: 1}
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert counts(check_data(cfg)) == {preflight.NOTHING_TO_TEST: 1}


def test_masks(cfg, train, test):
    cfg.MODEL.MASK_ON = True
    square = [[4, 4, 20, 4, 20, 20]]
    train.records[0]["annotations"][0]["segmentation"] = square
    cat, dog = train.records[1]["annotations"]
    cat["segmentation"] = {"size": [48, 64], "counts": b""}
    report = check_data(cfg)
    assert counts(report) == {model_needs.RLE_MASK: 1, model_needs.NO_MASK: 2}
    where = ("two.png", "object 2 of data set check_train", 'there is no "segmentation"')
    assert first(report, model_needs.NO_MASK) == where

    cfg.INPUT.MASK_FORMAT = "bitmask"
    dog["segmentation"] = {"size": [64, 48], "counts": b""}
    test.records[0]["annotations"][0]["iscrowd"] = 1  # no mask needed
    report = check_data(cfg)
    assert counts(report)[model_needs.RLE_SIZE] == 1
    assert model_needs.NO_MASK not in counts(report)


def test_masks_of_a_test_set_matter_where_they_are_measured(cfg, tmp_path, train):
    cfg.MODEL.MASK_ON = True
    for record in train.records:
        for item in record["annotations"]:
            item["segmentation"] = [[4, 4, 20, 4, 20, 20]]
    assert counts(check_data(cfg)) == {model_needs.NO_MASK: 1}
    boxes = Set(tmp_path, "check_voc", evaluator_type="pascal_voc")
    boxes.add("a.png", (1, (0, 0, 9, 9)))
    cfg.DATASETS.TEST = (boxes.name,)
    assert counts(check_data(cfg)) == {}


def test_keypoints(cfg, train, tmp_path):
    cfg.MODEL.KEYPOINT_ON, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = True, 2
    train.records[0]["annotations"][0]["keypoints"] = [1, 1, 2, 3, 3, 2]
    train.records[1]["annotations"][0]["keypoints"] = [1, 1, 2]
    cfg.DATASETS.TEST = ()
    report = check_data(cfg)
    assert counts(report) == {model_needs.BAD_KEYPOINTS: 2, model_needs.KEYPOINT_SETTING: 1}
    assert "got 3" in first(report, model_needs.BAD_KEYPOINTS)[2]

    MetadataCatalog.get(train.name).set(keypoint_names=["a", "b", "c"], keypoint_flip_map=[])
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    report = check_data(cfg)
    texts = [each.found for each in report.findings.first[model_needs.KEYPOINT_SETTING]]
    assert [text.split(",")[0] for text in texts] == [
        "3 keypoints (a",
        "0 numbers for 2 keypoints (MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS)",
    ]
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1, 0.1]
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 2
    report = check_data(cfg)
    assert counts(report)[model_needs.KEYPOINT_SETTING] == 1


def test_a_set_that_cannot_be_read_is_one_error_and_the_others_are_looked_at(cfg, tmp_path):
    def broken():
        raise ValueError("a.json: no\nimages")

    DatasetCatalog.register("check_broken", broken)
    MetadataCatalog.get("check_broken").set(evaluator_type="coco", json_file="data/a.json")
    cfg.DATASETS.TEST += ("check_broken",)
    report = check_data(cfg)
    assert counts(report) == {preflight.UNREADABLE_SET: 1}
    assert first(report, preflight.UNREADABLE_SET)[2] == "a.json: no images"
    assert report.test[1].layout == "COCO, data/a.json"


def test_what_a_reader_left_out_is_in_the_report(cfg, train):
    left = Findings()
    left.add(REVERSED, "a.xml", "object 1 (dog)", "xmin 9, xmax 3")
    note_left_out(train.name, left)
    assert counts(check_data(cfg)) == {REVERSED: 1}


def test_a_reader_that_takes_findings_tells_all_errors_and_its_layout(cfg, tmp_path):
    class Reader:
        def __call__(self, findings=None):
            for name in ("a.xml", "b.xml"):
                findings.add(MISSING_IMAGE, name, "", "there is no such file")
            return []

        def describe(self):
            return "two files"

    DatasetCatalog.register("check_reader", Reader())
    MetadataCatalog.get("check_reader").set(evaluator_type="coco")
    cfg.DATASETS.TEST = ("check_reader",)
    report = check_data(cfg)
    assert counts(report) == {MISSING_IMAGE: 2}
    assert report.test[0].layout == "two files"


def test_clipped_modes_and_cut_off_files_come_from_the_headers(cfg, train):
    path = train.add("deep.png", (0, (0, 0, 9, 9)))
    Image.fromarray(np.full(SIZE[::-1], 700, np.uint16)).save(path)
    path = train.add("cut.png", (0, (0, 0, 9, 9)))
    path.write_bytes(path.read_bytes()[:-99])
    assert counts(check_data(cfg)) == {image_headers.CLIPPED: 1, image_headers.TRUNCATED: 1}
    cfg.INPUT.LOAD_TRUNCATED = True
    assert image_headers.TRUNCATED_TAKEN in counts(check_data(cfg))


@pytest.mark.parametrize("brightest, count", [(4000, 1), (16_383, 1), (16_384, 0), (65_535, 0)])
def test_16_bits_a_colour_that_would_be_read_nearly_black(cfg, train, brightest, count):
    """Judged for a whole set: one dark photograph is no reason."""
    for record, highest in zip(train.records, (900, brightest)):
        values = np.tile([0, 100, highest], (SIZE[1], SIZE[0]))
        deep_png(Path(record["file_name"]), "RGB", values)
    report = check_data(cfg)
    assert counts(report) == ({deep_colour.NEARLY_BLACK: 1} if count else {})
    assert deep_colour.NEARLY_BLACK.severity == ERROR
    if brightest == 4000:
        assert first(report, deep_colour.NEARLY_BLACK) == (
            "check_train",
            "",
            "none of 2 images of 16 bits looked at has a value above 4095; of each the high byte is "
            "read, at most 15 of 255",
        )


def test_page(cfg, train):
    train.add("empty.png")
    train.add("missing.png", (0, (0, 0, 9, 9)), size=None)
    lines = page(check_data(cfg)).splitlines()
    words = {line.split()[0]: line.split() for line in lines if line}
    assert words["check_train"][1:4] == ["training", "4", "1"]
    assert words["cat"] == ["cat", "3", "75.0", "%", "0", "0.0", "%"]
    assert words["dog"] == ["dog", "1", "25.0", "%", "1", "100.0", "%"]
    assert "check_train: COCO" in lines
    start = lines.index("ERROR: images missing: 1")
    assert lines[start + 1].startswith("  remedy: ")
    assert lines[start + 2].endswith("missing.png: there is no such file")
    assert lines[-1] == "1 error, 0 warnings"


def test_page_of_many_classes_shows_the_most_frequent_and_the_rarest(cfg, tmp_path):
    names = [f"class{number}" for number in range(100)]
    data = Set(tmp_path / "many", "check_many", thing_classes=names)
    data.add("a.png", *[(number, (0, 0, 9, 9)) for number in range(100) for _ in range(number)])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (data.name,), ()
    report = check_data(cfg)
    lines = [line.split()[0] for line in page(report).splitlines() if line.startswith("class")]
    assert lines == ["class", *[f"class{n}" for n in (*range(99, 69, -1), *range(9, -1, -1))]]
    assert "... 60 more ..." in page(report)
    axes = draw(report, "many").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "class0"


def test_picture(cfg, train):
    train.add("a.png", (1, (20, 4, 21, 20)))
    report = check_data(cfg)
    classes, found, images, boxes = draw(report, "a title").axes
    assert [bar.get_width() for bar in classes.patches] == [2, 2, 0, 1]
    assert [label.get_text() for label in classes.get_yticklabels()] == ["cat", "dog"]
    assert found.get_title() == "What was found: 0 errors, 1 warning"
    assert [text.get_text() for text in found.texts] == [" warning: boxes below two pixels", "1"]
    labels = [text.get_text() for text in images.get_legend().get_texts()]
    assert labels == ["training, median 64", "test, median 64"]
    medians = [text.get_text() for text in boxes.get_legend().get_texts()]
    assert medians == ["training, median 18", "test, median 25"]  # of 4, 16, 20, 41; of 25


def test_picture_of_nothing(cfg):
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    report = check_data(cfg)
    assert report.findings.verdict() == "0 errors, 0 warnings"
    draw(report, "nothing")
    page(report)


@pytest.fixture
def coco(tmp_path):
    """A data set in COCO layout: the folder of images, the file, what is in it."""
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3))
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400}
    image = {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    return tmp_path, file, content


def command(coco, *options):
    folder, file, _ = coco
    entry = {"name": "check_coco", "format": "coco"}
    entry |= {"images": str(folder), "annotations": str(file)}
    sets = ["DATASETS.REGISTER", repr([entry]), "DATASETS.TRAIN", "('check_coco',)"]
    sets += ["DATASETS.TEST", "()", "MODEL.RETINANET.NUM_CLASSES", "1"]
    return main(["check-data", "--config-file", "configs/retina_alwa.yaml", *options, *sets])


def test_command(coco, capsys):
    folder, *_ = coco
    assert command(coco, "--output", str(folder / "out/page.png")) == 0
    out = capsys.readouterr().out
    assert "0 errors, 0 warnings" in out and "wrote " in out
    with Image.open(folder / "out/page.png") as picture:
        assert picture.width > 1000


def test_command_ends_with_1_for_errors_and_2_for_a_wrong_config(coco, capsys):
    folder, file, content = coco
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:-99])
    assert command(coco, "--decode") == 1
    out = capsys.readouterr().out
    assert "ERROR: images cut off: 1" in out and "INPUT.LOAD_TRUNCATED" in out
    assert (
        main(
            ["check-data", "--config-file", "configs/retina_alwa.yaml", "DATASETS.TRAIN", "('no',)"]
        )
        == 2
    )
    assert "expected registered data sets, got 'no'" in capsys.readouterr().err
