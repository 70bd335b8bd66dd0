"""Labels of a handful of anchors counted by hand, and all of `alwa-d2 box-shift`."""

import csv
from dataclasses import astuple, fields

import pytest
import torch
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")
pytest.importorskip("matplotlib", reason="needs Matplotlib")

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from PIL import Image

from alwa_d2.analysis.anchor_labels import Labeller, Sample, shifted, truth_of
from alwa_d2.analysis.box_shift import DIRECTIONS, Row, measure
from alwa_d2.analysis.box_shift_figure import choose_example, example_shifts
from alwa_d2.cli.main import main
from alwa_d2.engine import setup_cfg
from alwa_d2.errors import UserError

RETINA, RCNN = (str(REPO / "configs" / f"{n}_alwa.yaml") for n in ("retina", "faster_rcnn"))
SIZE = (96, 96)  # height, width; the pictures' own


@pytest.fixture(scope="module")
def voc_root(tmp_path_factory):
    """Three pictures in VOC layout; the first has a box of 32 x 32 in its middle, the last none."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    objects = {"middle": [("cat", 33, 33, 64, 64)], "none": []}
    objects["two"] = [("cat", 1, 20, 40, 50), ("dog", 60, 10, 80, 80)]
    for name, boxes in objects.items():
        Image.new("RGB", SIZE, (40, 90, 120)).save(root / "JPEGImages" / f"{name}.jpg")
        text = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height></size>"
        for kind, *box in boxes:
            tags = zip(("xmin", "ymin", "xmax", "ymax"), box)
            bndbox = "".join(f"<{k}>{v}</{k}>" for k, v in tags)
            text += f"<object><name>{kind}</name><bndbox>{bndbox}</bndbox></object>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
    (root / "ImageSets/Main/train.txt").write_text("middle\nnone\ntwo\n")
    (root / "ImageSets/Main/empty.txt").write_text("none\n")
    yield root
    for name in ("shifted_train", "shifted_empty"):  # what the command has registered
        if name in DatasetCatalog:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def options(voc_root, *more):
    """KEY VALUE pairs: the set of voc_root at its own size."""
    entries = [
        {
            "name": f"shifted_{split}", "format": "voc", "root": str(voc_root), "split": split,
            "classes": ["cat", "dog"],
        }
        for split in ("train", "empty")
    ]  # fmt: skip
    sets = ("DATASETS.TRAIN", "('shifted_train',)", "DATASETS.TEST", "('shifted_train',)")
    sizes = ("INPUT.MIN_SIZE_TEST", str(SIZE[0]), "INPUT.MAX_SIZE_TEST", "400")
    classes = ("MODEL.RETINANET.NUM_CLASSES", "2", "MODEL.ROI_HEADS.NUM_CLASSES", "2")
    return ["DATASETS.REGISTER", str(entries), *sets, *sizes, *classes, *more]


def instances(boxes, classes, size=SIZE):
    truth = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    return Instances(size, gt_boxes=truth, gt_classes=torch.tensor(classes, dtype=torch.int64))


class Handful:
    """A labeller with a grid of 9 anchors of 32 x 32, 16 pixels apart, and RetinaNet's rule."""

    def __init__(self):
        corners = [(x, y) for y in (16, 32, 48) for x in (16, 32, 48)]
        self.boxes = [[x, y, x + 32, y + 32] for x, y in corners]
        self.head = type("Head", (), {})()
        self.head.anchor_matcher = Matcher([0.4, 0.5], [0, -1, 1], allow_low_quality_matches=True)
        self.is_dense = True
        self.label = lambda *args: Labeller.label(self, *args)

    def anchors(self, size):
        return Boxes(torch.tensor(self.boxes, dtype=torch.float32))


def iou(a, b):
    """Of two boxes, written out."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    both = max(across, 0) * max(down, 0)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(area) - both)


def positives(anchors, box):
    """Numbers of the anchors that are positive for `box`, by a loop: IoU 0.5, or the highest."""
    ious = [iou(anchor, box) for anchor in anchors]
    return {i for i, v in enumerate(ious) if v >= 0.5 or v == max(ious)}


def by_shift(rows, direction):
    return {row.shift_px: row for row in rows if row.direction == direction}


def test_numbers_of_one_box_are_those_of_a_loop():
    labeller, box = Handful(), [32.0, 32.0, 64.0, 64.0]
    shifts = [0.0, 4.0, 8.0, 12.0, 20.0]
    sample = Sample({}, instances([box], [1]))
    rows = measure(labeller, [sample], shifts)
    assert len(rows) == 3 * len(shifts)
    before = positives(labeller.boxes, box)
    assert before == {4}  # its neighbours overlap it with 16 / 48
    for row in rows:
        signs = DIRECTIONS[row.direction]
        moves = [(x * row.shift_px, y * row.shift_px) for x, y in signs]
        copies = [[box[0] + x, box[1] + y, box[2] + x, box[3] + y] for x, y in moves]
        after = [positives(labeller.boxes, copy) for copy in copies]
        both = [after_one & before for after_one in after]
        either = [after_one | before for after_one in after]
        best = [max(iou(anchor, copy) for anchor in labeller.boxes) for copy in copies]
        assert row.positives_per_image == sum(map(len, after)) / len(copies)
        assert row.still_positive == sum(map(len, both)) / (len(before) * len(copies))
        assert row.changed == pytest.approx(1 - sum(map(len, both)) / sum(map(len, either)))
        assert row.best_anchor_iou == pytest.approx(sum(best) / len(copies))
        # s pixels in one direction leave 32 (32 - s) pixels in common, in both (32 - s)^2.
        left = 32 - row.shift_px
        common = left * left if row.direction == "x and y" else 32 * left
        assert row.iou_with_unmoved == pytest.approx(common / (2 * 32 * 32 - common))
    # By 8 pixels the box lies half way between two anchors: IoU 24 / 40 with both.
    at_8 = by_shift(rows, "x")[8.0]
    assert (at_8.positives_per_image, at_8.still_positive, at_8.changed) == (2, 1, 0.5)
    assert by_shift(rows, "x")[20.0].still_positive == 0


def test_at_0_nothing_has_changed_and_x_is_as_y():
    sample = Sample({}, instances([[32, 32, 64, 64]], [0]))
    rows = measure(Handful(), [sample], [0.0, 5.0, 9.0])
    x, y = by_shift(rows, "x"), by_shift(rows, "y")
    for direction in DIRECTIONS:
        row = by_shift(rows, direction)[0.0]
        assert (row.still_positive, row.changed, row.iou_with_unmoved) == (1, 0, 1)
    for shift in (5.0, 9.0):  # anchors and box are a square's
        assert astuple(x[shift])[1:] == pytest.approx(astuple(y[shift])[1:])


def test_a_mirrored_image_gives_the_same_numbers():
    there, mirrored = ([[20, 30, 50, 65]], [[96 - 50, 30, 96 - 20, 65]])
    measured = [
        measure(Handful(), [Sample({}, instances(box, [0]))], [0.0, 3.0, 17.0])
        for box in (there, mirrored)
    ]
    for row, other in zip(*measured):
        assert astuple(row)[1:] == pytest.approx(astuple(other)[1:], abs=1e-6)


def test_an_anchor_that_changes_its_class_has_changed():
    labeller = Handful()
    truth = instances([[16, 32, 48, 64], [48, 32, 80, 64]], [0, 1])
    # By 32 to the right the first box is where the second was; the second leaves the anchors.
    moved = shifted(truth, 32, 0)
    labels = [labeller.label(t, labeller.anchors(SIZE))[0].tolist() for t in (truth, moved)]
    assert labels[0] == [-1, -1, -1, 0, -1, 1, -1, -1, -1]
    assert labels[1] == [-1, -1, -1, -1, -1, 0, -1, -1, -1]
    row = by_shift(measure(labeller, [Sample({}, truth)], [0.0, 32.0]), "x")[32.0]
    assert (row.positives_per_image, row.still_positive, row.changed) == (1, 0, 1)


def test_a_box_that_overlaps_no_anchor_has_no_positives():
    labeller = Handful()
    anchors = labeller.anchors(SIZE)
    labels, best = labeller.label(instances([[200, 0, 232, 32]], [0]), anchors)
    assert labels.tolist() == [-1] * 9 and best.tolist() == [0]  # the matcher alone: all positive
    labels, _ = labeller.label(instances([[200, 0, 232, 32], [32, 32, 64, 64]], [0, 1]), anchors)
    assert labels.tolist() == [-1] * 4 + [1] + [-1] * 4


def labeller_of(config, opts):
    cfg = setup_cfg(config, [*opts, "MODEL.DEVICE", "cpu"])
    return cfg, Labeller(cfg)


def test_labels_are_those_that_training_uses(voc_root):
    truth = instances([[10, 20, 60, 50], [40, 30, 90, 90]], [1, 0])
    for name in ("AlwaRetinaNet", "RetinaNet"):
        opts = options(voc_root, "MODEL.META_ARCHITECTURE", name)
        _, labeller = labeller_of(RETINA, opts)
        anchors = labeller.anchors(SIZE)
        expected = labeller.model.label_anchors([anchors], [truth])[0][0]
        expected = torch.where(expected == 2, -1, expected)
        assert torch.equal(labeller.label(truth, anchors)[0], expected), name
    # More samples than there are anchors, so that none is dropped.
    all_of_them = (
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
        "1000000",
        "MODEL.RPN.POSITIVE_FRACTION",
        "1.0",
    )
    for name, rpn in (("AlwaGeneralizedRCNN", "AlwaRPN"), ("GeneralizedRCNN", "RPN")):
        more = ("MODEL.META_ARCHITECTURE", name, "MODEL.PROPOSAL_GENERATOR.NAME", rpn)
        _, labeller = labeller_of(RCNN, options(voc_root, *more, *all_of_them))
        anchors = labeller.anchors(SIZE)
        with EventStorage():
            sampled = labeller.head.label_and_sample_anchors([anchors], [truth])[0][0]
        assert torch.equal(labeller.label(truth, anchors)[0] == 0, sampled == 1), name


def test_anchors_are_those_of_the_padded_size(voc_root):
    _, labeller = labeller_of(RETINA, options(voc_root))
    # Padded to 96 x 128: maps of 12 x 16, 6 x 8, 3 x 4, 2 x 2 and 1 x 1 cells, 9 anchors each.
    anchors = labeller.anchors((90, 100))
    assert len(anchors) == 9 * (12 * 16 + 6 * 8 + 3 * 4 + 2 * 2 + 1)
    assert labeller.anchors((96, 128)) is anchors


def test_truth_is_at_test_size_and_crowds_are_left_out(voc_root):
    from detectron2.structures import BoxMode

    box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    empty = {**box, "bbox": [10, 10, 0, 20]}
    record = {"image_id": 7, "height": 48, "width": 72, "annotations": [box, empty]}
    record["annotations"].append({**box, "iscrowd": 1})
    cfg, _ = labeller_of(RETINA, options(voc_root))
    truth = truth_of(cfg, record)
    assert truth.image_size == (96, 144)
    assert truth.gt_boxes.tensor.tolist() == [[20, 20, 60, 60]]
    assert record["annotations"][0]["bbox"] == [10, 10, 20, 20]  # Detectron2 changes its argument
    with pytest.raises(UserError, match="image 7: the data set gives no height and width"):
        truth_of(cfg, {"image_id": 7})


@pytest.mark.parametrize("config", [RETINA, RCNN], ids=["retina", "faster_rcnn"])
def test_a_run_writes_picture_and_numbers(config, voc_root, tmp_path, capsys):
    output = tmp_path / "new" / "shift.png"
    arguments = ["--config-file", config, "--shifts", "8", "2.5", "--image", "middle"]
    assert main(["box-shift", *arguments, "--output", str(output), *options(voc_root)]) == 0
    with Image.open(output) as picture:
        assert picture.format == "PNG" and picture.width > 1000 and picture.height > 600
    assert output.stat().st_size < 300_000
    with output.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [field.name for field in fields(Row)]
    assert [row["shift_px"] for row in rows] == ["0", "2.5", "8"] * 3
    assert [row["direction"] for row in rows[::3]] == ["x", "y", "x and y"]
    for row in rows[::3]:
        assert (row["still_positive"], row["changed"], row["iou_with_unmoved"]) == ("1", "0", "1")
    printed = capsys.readouterr().out
    assert "2 images, 3 boxes" in printed  # the one without boxes is left out
    assert f"wrote {output} and {output.with_suffix('.csv')}" in printed


def test_example(voc_root):
    edge = Sample({"image_id": 1}, instances([[0, 10, 50, 60], [50, 10, 90, 30]], [0, 0]))
    large = Sample({"image_id": 2}, instances([[1, 1, 90, 90]], [0]))
    small = Sample({"image_id": "c"}, instances([[1, 1, 9, 9]], [0]))
    assert choose_example([edge, large, small], None) == (edge, 1)  # median of 64, 800 and 89 * 89
    assert choose_example([edge, large, small], "c") == (small, 0)
    shifts = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert example_shifts(shifts, small.truth, 0) == [0, 2, 4, 8]
    assert example_shifts([0.0, 64.0], small.truth, 0) == [0, 64]
    assert example_shifts([0.0], small.truth, 0) == [0]


@pytest.mark.parametrize(
    "arguments, opts, message",
    [
        (["--dataset", "unheard_of"], [], "data set 'unheard_of' is not registered"),
        (["--dataset", "shifted_empty"], [], "data set 'shifted_empty': no image has a box"),
        (["--image", "nobody"], [], "--image: no image with boxes is called 'nobody'"),
        ([], ["MODEL.META_ARCHITECTURE", "SemanticSegmentor"], "SemanticSegmentor has no anchors"),
        ([], ["NO.KEY", "1"], "Non-existent key: NO.KEY"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, opts, message, voc_root, capsys):
    arguments = ["--config-file", RETINA, *arguments, *options(voc_root, *opts)]
    assert main(["box-shift", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("alwa-d2 box-shift: ") and message in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--shifts", "-1"], "--shifts: expected pixels, 0 or more, got -1"),
        (["--shifts", "nan"], "--shifts: expected pixels, 0 or more, got nan"),
        (["--num-images", "0"], "--num-images: expected at least 1, got 0"),
        (["--output", "a.csv"], "--output: expected a name that ends in .png, got a.csv"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["box-shift", "--config-file", RETINA, *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
