"""Values of Detectron2's settings that are refused by key before its own code sees them."""

import re

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import REPO
from detectron2.data import transforms as T

from alwa_d2.cli.main import main
from alwa_d2.engine import setup_cfg
from alwa_d2.engine.settings import check_settings
from alwa_d2.errors import UserError, explain, user_errors

CONFIG = str(REPO / "configs" / "retina_alwa.yaml")


def changed(*pairs):
    """The config with other values, which yacs takes whatever they are."""
    cfg = setup_cfg(CONFIG, ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]).clone()
    cfg.defrost()
    cfg.merge_from_list(pairs)
    return cfg


@pytest.mark.parametrize(
    "pairs, message",
    [
        (("MODEL.META_ARCHITECTURE", "AlwaRetina"), "MODEL.META_ARCHITECTURE: expected a name of Detectron2's registry (nearest: AlwaRetinaNet"),
        (("MODEL.BACKBONE.NAME", "Foo"), "(nearest: none), got 'Foo'"),
        (("INPUT.RANDOM_FLIP", "both"), "INPUT.RANDOM_FLIP: expected one of 'horizontal', 'vertical', 'none', got 'both'"),
        (("INPUT.CROP.TYPE", "x"), "INPUT.CROP.TYPE: expected one of 'relative_range'"),
        (("INPUT.MIN_SIZE_TRAIN_SAMPLING", "x"), "expected one of 'choice', 'range', got 'x'"),
        (("INPUT.MIN_SIZE_TRAIN", "()"), "INPUT.MIN_SIZE_TRAIN: expected one size or more, got ()"),
        (("SOLVER.MAX_ITER", 0), "SOLVER.MAX_ITER: expected at least 1, got 0"),
        (("SOLVER.IMS_PER_BATCH", 0), "SOLVER.IMS_PER_BATCH: expected at least 1, got 0"),
        (("SOLVER.LR_SCHEDULER_NAME", "x"), "SOLVER.LR_SCHEDULER_NAME: expected one of"),
        (("MODEL.RETINANET.IOU_THRESHOLDS", "[0.0, 0.5]"), "MODEL.RETINANET.IOU_THRESHOLDS: expected numbers above 0 that do not fall"),
        (("MODEL.RPN.CONV_DIMS", ["a"]), "MODEL.RPN.CONV_DIMS: expected channels of each layer"),
        (("MODEL.PIXEL_MEAN", ["a", 1.0, 2.0]), "MODEL.PIXEL_MEAN: expected a number for each of the 3 channels"),
        (("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "XX"), "MODEL.ROI_MASK_HEAD.POOLER_TYPE: expected one of"),
        (("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16]]"), "MODEL.ANCHOR_GENERATOR.SIZES: expected one list for all or for each of MODEL.RETINANET.IN_FEATURES ["),
        (("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[0.5], [1.0]]"), "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS: expected one list for all"),
        (("MODEL.FPN.OUT_CHANNELS", 48), "MODEL.FPN.OUT_CHANNELS: expected a multiple of 32, the groups of MODEL.FPN.NORM GN, got 48"),
        (("SOLVER.OPTIMIZER", "adam"), "SOLVER.OPTIMIZER: expected one of 'SGD', 'AdamW', got 'adam'"),
        (("SOLVER.IMS_PER_BATCH", 3, "SOLVER.REFERENCE_WORLD_SIZE", 2), "SOLVER.REFERENCE_WORLD_SIZE: expected a number that divides SOLVER.IMS_PER_BATCH 3, got 2"),
        (("OUTPUT_DIR", ""), "OUTPUT_DIR: expected a folder, got ''"),
        (("DATASETS.TRAIN", "('a',)", "MODEL.LOAD_PROPOSALS", True), "DATASETS.PROPOSAL_FILES_TRAIN: expected a file for each of DATASETS.TRAIN ('a',) (MODEL.LOAD_PROPOSALS is True), got ()"),
        (("DATALOADER.SAMPLER_TRAIN", "x"), "DATALOADER.SAMPLER_TRAIN: expected one of"),
        (("MODEL.RESNETS.DEPTH", 51), "MODEL.RESNETS.DEPTH: expected one of 18, 34, 50, 101, 152, got 51"),
        (("MODEL.RETINANET.IOU_THRESHOLDS", "[0.5]"), "MODEL.RETINANET.IOU_LABELS: expected one more than the IOU_THRESHOLDS [0.5], got [0, -1, 1]"),
        (("INPUT.FORMAT", "XYZ"), "INPUT.FORMAT: expected BGR, RGB, YUV-BT.601, L or another mode of Pillow's, got 'XYZ'"),
        (("INPUT.FORMAT", "L"), "MODEL.PIXEL_MEAN: expected a number for each of the 1 channels of INPUT.FORMAT L, got ["),
        (("MODEL.PIXEL_STD", "[1.0, 1.0]"), "MODEL.PIXEL_STD: expected a number for each of the 3 channels of INPUT.FORMAT BGR, got [1.0, 1.0]"),
        (("INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", "[2.0, 2.0]"), "INPUT.CROP.SIZE: expected two shares of the image, above 0 and up to 1 (INPUT.CROP.TYPE relative_range), got [2.0, 2.0]"),
        (("INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", "[0.5]"), "INPUT.CROP.SIZE: expected two shares"),
        (("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute"), "INPUT.CROP.SIZE: expected two whole numbers of pixels (INPUT.CROP.TYPE absolute), got [0.9, 0.9]"),
        (("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", "[40, 20]"), "INPUT.CROP.SIZE: expected two whole numbers of pixels, the lower one first"),
        (("INPUT.MIN_SIZE_TRAIN", "(-5,)"), "INPUT.MIN_SIZE_TRAIN: expected one size or more, got (-5,)"),
        (("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(90, 60)"), "INPUT.MIN_SIZE_TRAIN: expected the lowest and the highest size"),
        (("INPUT.MAX_SIZE_TRAIN", 0), "INPUT.MAX_SIZE_TRAIN: expected at least 1, got 0"),
        (("MODEL.RETINANET.NUM_CONVS", -1), "MODEL.RETINANET.NUM_CONVS: expected at least 1, got -1"),
        (("MODEL.FCOS.NUM_CONVS", 0), "MODEL.FCOS.NUM_CONVS: expected at least 1, got 0"),
        (("MODEL.FPN.OUT_CHANNELS", 0), "MODEL.FPN.OUT_CHANNELS: expected at least 1, got 0"),
        (("MODEL.FPN.IN_FEATURES", "[]"), "MODEL.FPN.IN_FEATURES: expected one feature map or more, got []"),
        (("MODEL.RETINANET.IN_FEATURES", "[]"), "MODEL.RETINANET.IN_FEATURES: expected one feature map or more"),
        (("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[]"), "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS: expected for each feature map one number above 0 or more, got []"),
        (("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[]]"), "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS: expected for each"),
        (("MODEL.ANCHOR_GENERATOR.SIZES", "[[-32]]"), "MODEL.ANCHOR_GENERATOR.SIZES: expected for each feature map one number above 0"),
        (("MODEL.RETINANET.PRIOR_PROB", 1.0), "MODEL.RETINANET.PRIOR_PROB: expected a number between 0 and 1, got 1.0"),
        (("MODEL.RETINANET.SCORE_THRESH_TEST", 2.0), "MODEL.RETINANET.SCORE_THRESH_TEST: expected 0 to 1, got 2.0"),
        (("MODEL.RETINANET.BBOX_REG_WEIGHTS", "(1.0,)"), "MODEL.RETINANET.BBOX_REG_WEIGHTS: expected four numbers above 0"),
        (("MODEL.RETINANET.IOU_THRESHOLDS", "[0.6, 0.4]"), "MODEL.RETINANET.IOU_THRESHOLDS: expected numbers above 0 that do not fall"),
        (("MODEL.RETINANET.IOU_LABELS", "[0, 5, 1]"), "MODEL.RETINANET.IOU_LABELS: expected labels of -1, 0 and 1"),
        (("MODEL.ROI_HEADS.IOU_LABELS", "[0]"), "MODEL.ROI_HEADS.IOU_LABELS: expected one more than"),
        (("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"), "MODEL.ROI_BOX_HEAD.NUM_FC: expected at least 1, where NUM_CONV is 0, got 0"),
        (("MODEL.RPN.HEAD_NAME", "x"), "MODEL.RPN.HEAD_NAME: expected a name of Detectron2's registry"),
        (("MODEL.RPN.CONV_DIMS", "[0]"), "MODEL.RPN.CONV_DIMS: expected channels of each layer"),
        (("MODEL.PIXEL_STD", "[0.0, 1.0, 1.0]"), "MODEL.PIXEL_STD: expected numbers above 0"),
        (("SOLVER.BASE_LR", -1.0), "SOLVER.BASE_LR: expected at least 0, got -1.0"),
        (("SOLVER.STEPS", "(300, 100)"), "SOLVER.STEPS: expected iterations in their order, got (300, 100)"),
    ],
)  # fmt: skip
def test_values_are_refused_by_key(pairs, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_settings(changed(*pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        ("INPUT.MIN_SIZE_TRAIN", "(640, 640)", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"),
        ("INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[110.0]", "MODEL.PIXEL_STD", "[57.0]"),
        ("INPUT.FORMAT", "RGBA", "MODEL.PIXEL_MEAN", "[1., 2., 3., 4.]", "MODEL.PIXEL_STD", "[1.]"),
        ("INPUT.FORMAT", "YUV-BT.601", "TEST.EVAL_PERIOD", -1, "INPUT.MIN_SIZE_TEST", 0),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
        ("INPUT.CROP.SIZE", "[2.0, 2.0]"),  # of crops that are not made
        ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "[30, 20]"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[16, 32.5]"),  # the same for all feature maps
        ("SOLVER.STEPS", "()", "INPUT.MIN_SIZE_TRAIN", "(0,)", "MODEL.RPN.CONV_DIMS", "[-1, 64]"),
    ],
)
def test_values_with_a_meaning_are_taken(pairs):
    check_settings(changed(*pairs))


def test_commands_tell_them_in_one_line(capsys):
    assert main(["train", "--config-file", CONFIG, "INPUT.RANDOM_FLIP", "both"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("alwa-d2 train: INPUT.RANDOM_FLIP: expected one of")


def test_an_evaluation_of_nothing_is_refused(tmp_path, capsys):
    opts = ["DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path)]
    assert main(["train", "--eval-only", "--config-file", CONFIG, *opts]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("alwa-d2 train: DATASETS.TEST: expected at least one data set")


def test_a_bare_assertion_tells_what_it_asserts():
    with pytest.raises(UserError) as caught, user_errors():
        T.RandomCrop("x", (0.5, 0.5))
    told = "AssertionError (augmentation_impl.py, line N: assert crop_type in ["
    assert re.sub(r"line \d+", "line N", str(caught.value)).startswith(told)
    with pytest.raises(UserError) as again, user_errors():
        raise UserError("AssertionError")  # not wrapped into another name
    assert str(again.value) == "AssertionError"
    assert explain(KeyError("x")) == "KeyError: x"  # never raised


@pytest.mark.parametrize(
    "text, key",
    [("DATASETS:\n  TEST:\n", "DATASETS.TEST"), ("SOLVER: {MAX_ITER: null}", "SOLVER.MAX_ITER")],
)
def test_a_key_that_was_left_empty_is_named(text, key, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"{key}: expected a value such as .*, got none"):
        setup_cfg(str(path))
    path.write_text("MODEL: {LOSS_WEIGHTER: {LOSSES: null}}")
    setup_cfg(str(path))
