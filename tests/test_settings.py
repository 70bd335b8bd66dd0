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
    ],
)  # fmt: skip
def test_values_are_refused_by_key(pairs, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_settings(changed(*pairs))


@pytest.mark.parametrize(
    "pairs",
    [
        ("INPUT.FORMAT", "L", "MODEL.PIXEL_MEAN", "[110.0]", "MODEL.PIXEL_STD", "[57.0]"),
        ("INPUT.FORMAT", "RGBA", "MODEL.PIXEL_MEAN", "[1., 2., 3., 4.]", "MODEL.PIXEL_STD", "[1.]"),
        ("INPUT.FORMAT", "YUV-BT.601", "TEST.EVAL_PERIOD", -1, "INPUT.MIN_SIZE_TEST", 0),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"),
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
