"""Config keys of the weighters: groups of losses, old names, hashes, scaling, what has no effect."""

import logging

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

import test_rcnn
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer
from torch import nn
from toy import toy_cfg, train

from alwa_d2 import add_alwa_config
from alwa_d2.config import dump_for_hash, get_key, own_defaults, scale_iterations
from alwa_d2.engine import augmented_results
from alwa_d2.engine.defaults import scale_to_processes, setup_cfg
from alwa_d2.engine.weighting_line import describe, log_weighting, settings_without_effect
from alwa_d2.modeling.groups import build_loss_weighters, build_one_weighter, check_weighed
from alwa_d2.weighting import (
    ALWA,
    DWA,
    LOSS_WEIGHTER_REGISTRY,
    Fixed,
    GradNorm,
    Inverse,
    LossWeighter,
    Schedule,
    SelfBalance,
)

RPN, ROI = ("loss_rpn_cls", "loss_rpn_loc"), ("loss_cls", "loss_box_reg")
LOSSES, PAIRS = "MODEL.LOSS_WEIGHTER.LOSSES", "MODEL.ALWA.PAIRS"


def default_cfg(*opts):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_list(list(opts))
    return cfg


def make_cfg(*opts):
    return default_cfg("MODEL.LOSS_WEIGHTER.NAME", "ALWA", *opts)


def groups(*opts, pairs=(RPN, ROI), others=("loss_mask",)):
    return [w.keys for w in build_loss_weighters(make_cfg(*opts), pairs, others)]


# --- Groups ---------------------------------------------------------------------------------------


def test_groups():
    fixed = ("MODEL.LOSS_WEIGHTER.NAME", "Fixed")
    assert groups() == groups(LOSSES, "pairs") == [RPN, ROI]
    assert groups(*fixed, LOSSES, "all") == [(*RPN, *ROI, "loss_mask")]
    assert groups(LOSSES, "all", pairs=[ROI], others=()) == [ROI]  # all of a RetinaNet are a pair
    mine = [["loss_cls", "loss_mask"], ["loss_rpn_cls", "loss_rpn_loc", "loss_box_reg"]]
    assert groups(*fixed, LOSSES, str(mine)) == [tuple(group) for group in mine]
    for two in (["loss_rpn_cls", "loss_cls"], ["loss_box_reg", "loss_mask"]):  # no swapped pair
        assert groups(*fixed, LOSSES, [two]) == [tuple(two)]
        with pytest.raises(ValueError, match=r"expected \[class.* for ALWA, got \['loss_"):
            groups(LOSSES, [two])
    with pytest.raises(ValueError, match="ALWA .* expected two losses, .* got 5"):
        groups(LOSSES, "all")


def test_by_default_weights_are_1():
    def weights(*opts):
        made = build_loss_weighters(default_cfg(*opts), [RPN, ROI], ["loss_mask"])
        return [{key: float(x) for key, x in weighter.weights.items()} for weighter in made]

    assert weights() == [dict.fromkeys(RPN, 1), dict.fromkeys(ROI, 1)]
    assert weights(LOSSES, "all") == [dict.fromkeys((*RPN, *ROI, "loss_mask"), 1)]
    half = [dict(zip(pair, (0.5, 1), strict=True)) for pair in (RPN, ROI)]
    assert weights("MODEL.LOSS_WEIGHTER.WEIGHTS", [0.5, 1.0]) == half


@pytest.mark.parametrize(
    "value, words",
    [
        ("both", 'expected "pairs", "all" or lists of names'),
        ([], "lists of names"),
        (["loss_cls", "loss_box_reg"], "lists of names"),
        ([["loss_cls"]], "lists of names"),
        ([["loss_cls", 3]], "lists of names"),
        ([["loss.cls", "loss_box_reg"]], "lists of names"),
        ([["loss_cls", "loss_box_reg"], ["loss_mask", "loss_cls"]], "'loss_cls' again"),
        ([["loss_box_reg", "loss_cls"]], r"got \['loss_box_reg', 'loss_cls'\], which are swapped"),
        ([["loss_rpn_loc", "loss_cls"]], "swapped"),
    ],
    ids=str,
)
def test_what_are_no_groups_is_refused_by_key(value, words):
    with pytest.raises(ValueError, match=f"{LOSSES}: .*{words}"):
        groups(LOSSES, value)


def test_the_old_key_is_understood_and_said(caplog):
    with caplog.at_level(logging.INFO):
        assert groups(PAIRS, [list(RPN)]) == [RPN]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"{PAIRS} is now called {LOSSES}, and means that."
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert groups(PAIRS, [list(RPN)], LOSSES, [list(RPN)]) == [RPN]
    assert not caplog.records
    for other in ("pairs", [list(ROI)]):
        with pytest.raises(ValueError, match=f"{LOSSES} and {PAIRS}, its old name: expected one"):
            groups(PAIRS, [list(RPN)], LOSSES, other)
    with pytest.raises(ValueError, match=f"{PAIRS}: .*swapped"):
        groups(PAIRS, [["loss_rpn_loc", "loss_rpn_cls"]])


def test_a_model_with_room_for_one_group():
    cfg = make_cfg(LOSSES, [["loss_cls", "a"], ["b", "loss_box_reg"]])
    with pytest.raises(ValueError, match=f"{LOSSES}: expected one pair for AlwaRetinaNet"):
        build_one_weighter(cfg, "AlwaRetinaNet", ROI)
    assert build_one_weighter(make_cfg(), "AlwaRetinaNet", ROI).keys == ROI
    cfg = make_cfg(LOSSES, [["loss_cls", "loss_mask"]])  # known before the first iteration
    with pytest.raises(ValueError, match="needs the loss 'loss_mask'; this model has loss_box_reg"):
        build_one_weighter(cfg, "AlwaRetinaNet", ROI)


def test_losses_that_the_model_does_not_have_or_that_are_in_no_group():
    weighters = [Fixed(*RPN), Fixed(*ROI)]
    check_weighed(weighters, (*RPN, *ROI, "loss_mask"))
    with pytest.raises(ValueError, match="needs the loss 'loss_cls'; this model has loss_rpn_cls"):
        check_weighed(weighters, RPN)
    with pytest.raises(ValueError, match=f"{LOSSES}: expected that all .* found loss_mask besides"):
        check_weighed(weighters, (*RPN, *ROI, "loss_mask"), every=True)


def test_weights_by_name_go_to_the_groups_that_have_them():
    fixed = ("MODEL.LOSS_WEIGHTER.NAME", "Fixed", "MODEL.LOSS_WEIGHTER.WEIGHTS")
    cfg = make_cfg(*fixed, '[["loss_rpn_loc", 3], ["loss_cls", 0.5]]')
    weights = {
        key: float(x)
        for weighter in build_loss_weighters(cfg, [RPN, ROI], ["loss_mask"])
        for key, x in weighter.weights.items()
    }
    assert weights == {"loss_rpn_cls": 1, "loss_rpn_loc": 3, "loss_cls": 0.5, "loss_box_reg": 1}
    cfg = make_cfg(*fixed, '[["loss_mask", 3]]')
    with pytest.raises(
        ValueError, match=f"WEIGHTS: expected only losses that {LOSSES} says .*; got .loss_mask."
    ):
        build_loss_weighters(cfg, [RPN, ROI], ["loss_mask"])
    cfg.merge_from_list([LOSSES, "all"])
    (weighter,) = build_loss_weighters(cfg, [RPN, ROI], ["loss_mask"])
    assert float(weighter.weights["loss_mask"]) == 3
    cfg = make_cfg(*fixed, '[["loss_cls", 3], ["loss_cls", 2]]')
    with pytest.raises(ValueError, match="WEIGHTS: expected each loss once, got 'loss_cls' again"):
        build_loss_weighters(cfg, [ROI])


def test_schedule_from_a_config():
    schedule = ("MODEL.LOSS_WEIGHTER.NAME", "Schedule", "MODEL.LOSS_WEIGHTER.SCHEDULE")
    cfg = make_cfg(*schedule, '[["loss_rpn_cls", [[0, 0.5], [10, 1.0]]]]')
    rpn, roi = build_loss_weighters(cfg, [RPN, ROI])
    assert float(rpn.weights["loss_rpn_cls"]) == 0.5 and float(roi.weights["loss_cls"]) == 1
    for bad in ('["loss_cls"]', '[["loss_cls", 0.5]]', '[["loss_mask", [[0, 1]]]]'):
        with pytest.raises(ValueError, match="MODEL.LOSS_WEIGHTER.SCHEDULE"):
            build_loss_weighters(make_cfg(*schedule, bad), [RPN, ROI])


def test_a_share_of_a_loss_that_is_not_weighed_is_refused():
    cfg = make_cfg(
        "MODEL.LOSS_WEIGHTER.NAME", "Inverse",
        "MODEL.LOSS_WEIGHTER.INVERSE.TARGET", [["loss_mask", 2.0]],
    )  # fmt: skip
    with pytest.raises(ValueError, match="^MODEL.LOSS_WEIGHTER.INVERSE.TARGET: .*'loss_mask'"):
        build_loss_weighters(cfg, [RPN, ROI])


# --- Hashes and scaling ---------------------------------------------------------------------------


def test_new_keys_leave_the_hashes_of_old_runs_as_they_are():
    """Only what is set of them is in the text; the first ones are always."""
    text = dump_for_hash(make_cfg())
    for name in ("FCOS", "LOSSES", "SUM_TO", "SCHEDULE:"):
        assert name not in text
    for name in ("PAIRS", "FREEZE_AFTER", "SYNC_NORMALIZER", "REGISTER", "PRECISION"):
        assert name in text
    cfg = make_cfg(LOSSES, "all", "MODEL.FCOS.NUM_CONVS", 2)
    changed = dump_for_hash(cfg)
    assert "LOSSES: all" in changed and "NUM_CONVS: 2" in changed and "PRIOR_PROB" in changed
    assert cfg.MODEL.FCOS.NUM_CLASSES == 80  # left as it is
    plain = get_cfg()
    assert own_defaults(plain)["MODEL.FCOS.NUM_CONVS"] == 4 and "FCOS" not in plain.MODEL


def test_iterations_are_scaled_with_the_number_of_processes(caplog):
    """As Detectron2 scales MAX_ITER: four processes in place of two, half the iterations."""
    schedule = [["loss_cls", [[0, 0.5], [100, 1.0]]]]
    cfg = make_cfg(
        "SOLVER.REFERENCE_WORLD_SIZE", 2, "SOLVER.MAX_ITER", 1000, "MODEL.ALWA.INTERVAL", 51,
        "MODEL.ALWA.FREEZE_AFTER", 300, "MODEL.LOSS_WEIGHTER.SCHEDULE", schedule,
        "MODEL.LOSS_WEIGHTER.SELFBALANCE.PERIOD", 40, "MODEL.LOSS_WEIGHTER.DWA.WINDOW", 60,
        "MODEL.LOSS_WEIGHTER.GRADNORM.WINDOW", 20,
    )  # fmt: skip
    cfg.freeze()
    with caplog.at_level(logging.INFO, logger="alwa_d2"):
        scaled = scale_iterations(DefaultTrainer.auto_scale_workers(cfg, 4), cfg)
    assert scaled.SOLVER.MAX_ITER == 500 and scaled.is_frozen()
    assert (scaled.MODEL.ALWA.INTERVAL, scaled.MODEL.ALWA.FREEZE_AFTER) == (26, 150)
    methods = scaled.MODEL.LOSS_WEIGHTER
    assert methods.SCHEDULE == [["loss_cls", [[0, 0.5], [50, 1.0]]]]
    windows = (methods.SELFBALANCE.PERIOD, methods.DWA.WINDOW, methods.GRADNORM.WINDOW)
    assert windows == (20, 30, 10)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "alwa_d2.config"]
    assert "MODEL.ALWA.INTERVAL 26 for 51, MODEL.ALWA.FREEZE_AFTER 150 for 300" in line
    assert scale_iterations(DefaultTrainer.auto_scale_workers(cfg, 2), cfg) is cfg


def test_other_methods_defaults_are_not_scaled():
    """Else the line at the start would take them for settings without effect."""
    cfg = make_cfg("SOLVER.REFERENCE_WORLD_SIZE", 4, "MODEL.LOSS_WEIGHTER.NAME", "DWA")
    scaled = scale_to_processes(cfg)  # one
    changed = [key for key, default in own_defaults(cfg).items() if get_key(scaled, key) != default]
    assert changed == ["MODEL.LOSS_WEIGHTER.NAME", "MODEL.LOSS_WEIGHTER.DWA.WINDOW"]


def test_periods_do_not_become_0():
    """Which is an error, and never."""
    periods = ("SOLVER.CHECKPOINT_PERIOD", 1, "TEST.EVAL_PERIOD", 2)
    cfg = make_cfg("SOLVER.REFERENCE_WORLD_SIZE", 1, *periods)
    scaled = scale_iterations(DefaultTrainer.auto_scale_workers(cfg, 16), cfg)
    assert scaled.SOLVER.CHECKPOINT_PERIOD == scaled.TEST.EVAL_PERIOD == 1
    cfg = make_cfg("SOLVER.REFERENCE_WORLD_SIZE", 1)
    scaled = scale_iterations(DefaultTrainer.auto_scale_workers(cfg, 16), cfg)
    assert scaled.TEST.EVAL_PERIOD == 0


def test_a_step_stays_one_on_fewer_processes():
    step = [["loss_cls", [[499, 1.0], [500, 0.25], [600, 0.5]]]]
    cfg = make_cfg("SOLVER.REFERENCE_WORLD_SIZE", 8, "MODEL.LOSS_WEIGHTER.SCHEDULE", step)
    scaled = scale_iterations(DefaultTrainer.auto_scale_workers(cfg, 2), cfg)
    points = [[1996, 1.0], [1997, 0.25], [2400, 0.5]]
    assert scaled.MODEL.LOSS_WEIGHTER.SCHEDULE == [["loss_cls", points]]


@pytest.mark.parametrize("interval, least", [(2, 2), (3, 3), (40, 3)])
def test_scaled_iterations_are_still_allowed(interval, least):
    """A window keeps the iterations that it needs, with DETREND, too; a step stays one."""
    step = [["loss_cls", [[0, 1.0], [499, 1.0], [500, 0.25], [600, 0.5]]]]
    tiny = make_cfg(
        "SOLVER.REFERENCE_WORLD_SIZE", 1, "MODEL.ALWA.INTERVAL", interval,
        "MODEL.LOSS_WEIGHTER.NAME", "Schedule", "MODEL.LOSS_WEIGHTER.SCHEDULE", step,
    )  # fmt: skip
    scaled = scale_iterations(DefaultTrainer.auto_scale_workers(tiny, 16), tiny)
    assert scaled.MODEL.ALWA.INTERVAL == least and scaled.MODEL.ALWA.FREEZE_AFTER == 0
    points = [[0, 1.0], [31, 1.0], [32, 0.25], [38, 0.5]]
    assert scaled.MODEL.LOSS_WEIGHTER.SCHEDULE == [["loss_cls", points]]
    build_loss_weighters(scaled, [ROI])


def test_points_that_do_not_rise_are_refused_after_scaling_too():
    cfg = make_cfg(
        "SOLVER.REFERENCE_WORLD_SIZE", 1, "MODEL.LOSS_WEIGHTER.NAME", "Schedule",
        "MODEL.LOSS_WEIGHTER.SCHEDULE", [["loss_cls", [[500, 1.0], [500, 0.25]]]],
    )  # fmt: skip
    scaled = scale_iterations(DefaultTrainer.auto_scale_workers(cfg, 4), cfg)
    with pytest.raises(ValueError, match="iterations rising from 0 on"):
        build_loss_weighters(scaled, [ROI])


# --- The line at the start ------------------------------------------------------------------------


class AlwaRetinaNet(nn.Module):
    """Only named as the detector is."""

    def __init__(self, *weighters):
        super().__init__()
        self.weighters = nn.ModuleList(weighters)


class RetinaNet(AlwaRetinaNet):
    """As `AlwaRetinaNet`, but without weighters."""


def test_the_line_says_what_weighs_which_losses_how():
    model = AlwaRetinaNet(ALWA(interval=7), Fixed("a", "b", weights=(0.5, 1)))
    assert describe(model) == (
        "Loss weights: loss_cls, loss_box_reg by ALWA (variant=ALWA_2, rule=balance, interval=7); "
        "a, b by Fixed (weights=0.5:1); any others 1."
    )
    assert "RetinaNet has no loss weighter" in describe(nn.Sequential(RetinaNet())[0])


@pytest.mark.parametrize(
    "weighter, opts, words",
    [
        ({}, [], None),
        ({}, [LOSSES, "pairs"], None),
        ({}, ["MODEL.LOSS_WEIGHTER.WEIGHTS", [0.5, 1.0]],
         "MODEL.LOSS_WEIGHTER.WEIGHTS (ALWA does not take it, only Fixed)"),
        ({}, ["MODEL.LOSS_WEIGHTER.SUM_TO", 2.0],
         "SUM_TO (ALWA does not take it, only CoV, DWA, FAMO, Inverse, RLW)"),
        ({}, ["SOLVER.MAX_ITER", 50], "no window of INTERVAL 100 iterations ends before the last"),
        ({"freeze_after": 40}, [], "FREEZE_AFTER 40 comes before the first window's end"),
        ({"freeze_after": 100}, [], None),
        ({"rule": "authors", "min_weight": 0.2}, [], "MIN_WEIGHT: RULE authors has no floor"),
        ({"rule": "authors"}, [], None),
        ({}, ["MODEL.FCOS.NUM_CONVS", 2], "MODEL.FCOS.NUM_CONVS (AlwaRetinaNet does not read it)"),
        ({}, ["MODEL.RETINANET.SYNC_NORMALIZER", True], None),
        ({}, ["SOLVER.AMP.PRECISION", "bfloat16"], "PRECISION (SOLVER.AMP.ENABLED is False)"),
    ],
    ids=str,
)  # fmt: skip
def test_settings_without_effect_are_named(weighter, opts, words, caplog):
    model, cfg = AlwaRetinaNet(ALWA(**weighter)), make_cfg(*opts)
    with caplog.at_level(logging.INFO):
        log_weighting(cfg, model)
    (record,) = caplog.records
    assert record.levelno == (logging.WARNING if words else logging.INFO)
    assert "by ALWA" in record.getMessage()
    assert (words or "any others 1.") in record.getMessage()


@pytest.mark.parametrize(
    "weighter, idle, works",
    [
        (lambda n: SelfBalance(period=n), 10, 9),
        (lambda n: DWA(window=n), 5, 4),
        (lambda n: GradNorm(window=n), 9, 8),
        (lambda n: Schedule(points={"loss_cls": [(n, 1.0), (n + 5, 0.5)]}), 9, 8),
        (lambda n: ALWA(interval=n), 10, 9),
    ],
    ids=["SelfBalance", "DWA", "GradNorm", "Schedule", "ALWA"],
)
def test_what_begins_too_late_is_said(weighter, idle, works):
    """Of ten iterations; and what is not said does change a weight before the last."""
    assert weighter(idle).without_effect(10) and not weighter(works).without_effect(10)
    for n, moves in ((idle, False), (works, True)):
        own = weighter(n)
        x = nn.Parameter(torch.tensor([1.0, 2.0]))
        if isinstance(own, GradNorm):
            own = GradNorm(window=n, shared=[x])
        seen = []
        for i in range(10):
            pair = x.square() * torch.tensor([1.0 + i % 3, 3.0])
            own.observe(losses := dict(zip(own.keys, pair)))
            own.weigh(losses)
            seen.append([float(weight) for weight in own.weights.values()])
            own.step()
        assert (seen[-1] != seen[0]) == moves


def test_settings_are_said_where_they_are_not_the_defaults():
    keys = "loss_cls", "loss_box_reg"
    for name in ("DWA", "CoV", "RLW", "FAMO", "Inverse"):
        class_ = LOSS_WEIGHTER_REGISTRY.get(name)
        assert "sum_to" not in class_(*keys).settings()
        assert class_(*keys, sum_to=0.5).settings().endswith(", sum_to=0.5")
    assert "sum_to=0.5" in Inverse(*keys, form="softmax", sum_to=0.5).settings()
    assert "min_weight=0.2" in ALWA(min_weight=0.2).settings()
    assert "parameters='^neck'" in GradNorm(parameters="^neck").settings()


def test_settings_of_a_weighter_that_is_not_there():
    cfg = make_cfg("MODEL.ALWA.INTERVAL", 7, PAIRS, [list(ROI)])
    (class_,) = {type(RetinaNet())}
    assert settings_without_effect(cfg, class_()) == [
        "MODEL.LOSS_WEIGHTER.NAME (RetinaNet has no loss weighter)",
        "MODEL.ALWA.INTERVAL (RetinaNet has no loss weighter)",
        "MODEL.ALWA.PAIRS (RetinaNet has no loss weighter)",
    ]
    cfg.MODEL.LOSS_WEIGHTER.NAME = "Fixed"
    fixed = AlwaRetinaNet(Fixed())
    idle = ["MODEL.ALWA.INTERVAL (Fixed does not take it, only ALWA)"]
    pairs = ["MODEL.ALWA.PAIRS (weights of 1 need no pairs)"]
    assert settings_without_effect(cfg, fixed) == idle + pairs
    assert settings_without_effect(cfg, AlwaRetinaNet(Fixed(weights=(0.5, 1)))) == idle

    class Own(LossWeighter):
        """Of a user's own, which does not say what it reads."""

        @property
        def weights(self):
            return {key: torch.ones(()) for key in self.keys}

    assert settings_without_effect(cfg, AlwaRetinaNet(Own())) == []


# --- TEST.AUG -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["retina_alwa", "fcos_alwa"])
def test_augmented_tests_of_what_detectron2_does_not_augment_are_refused(name):
    from alwa_d2.model_zoo import get_config_file

    with pytest.raises(ValueError, match="TEST.AUG.ENABLED: expected an R-CNN .*, got MODEL.META_"):
        setup_cfg(get_config_file(f"{name}.yaml"), ["TEST.AUG.ENABLED", True])
    cfg = setup_cfg(get_config_file("faster_rcnn_alwa.yaml"), ["TEST.AUG.ENABLED", True])
    assert cfg.TEST.AUG.ENABLED


def test_augmented_tests_of_an_rcnn():
    """As Detectron2's: the image in two sizes and flipped; results under names of their own."""
    model = test_rcnn.make_model().eval()
    cfg = test_rcnn.make_cfg(
        TEST__AUG__ENABLED=True, TEST__AUG__MIN_SIZES=(64, 96), DATASETS__TEST=("a_set",)
    )
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)

    class Stub:
        seen = []

        @staticmethod
        def build_evaluator(cfg, name):
            return name, cfg.OUTPUT_DIR

        @classmethod
        def test(cls, cfg, model, evaluators):
            with torch.no_grad():
                cls.seen.append((evaluators, model([{"image": image, "height": 64, "width": 64}])))
            return {"bbox": {"AP": 1.0}}

    assert augmented_results(Stub, cfg, model) == {"bbox_TTA": {"AP": 1.0}}
    ((evaluators, (found,)),) = Stub.seen
    assert evaluators == [("a_set", f"{cfg.OUTPUT_DIR}/inference_TTA")]
    assert len(found["instances"].pred_boxes) == len(found["instances"].scores)
    cfg.TEST.AUG.ENABLED = False
    assert augmented_results(Stub, cfg, model) == {} and len(Stub.seen) == 1


# --- A whole training -----------------------------------------------------------------------------


def test_the_line_is_logged_once_at_the_start(tmp_path, caplog):
    weights = ("MODEL.LOSS_WEIGHTER.WEIGHTS", [0.5, 1.0])
    lines = {}
    for name in ("AlwaRetinaNet", "RetinaNet"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            train(toy_cfg(name, tmp_path / name, "SOLVER.MAX_ITER", 2, *weights))
        said = [record.getMessage() for record in caplog.records]
        (lines[name],) = [line for line in said if line.startswith("Loss weights: ")]
    assert "loss_cls, loss_box_reg by ALWA (variant=ALWA_2" in lines["AlwaRetinaNet"]
    assert (
        "WEIGHTS (ALWA does not take it, only Fixed); ALWA: no window of INTERVAL 4"
        in lines["AlwaRetinaNet"]
    )
    assert "RetinaNet has no loss weighter" in lines["RetinaNet"]
    assert "MODEL.ALWA.INTERVAL (RetinaNet has no loss weighter)" in lines["RetinaNet"]


def test_the_trainer_scales_the_windows(tmp_path):
    cfg = toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.REFERENCE_WORLD_SIZE", 2)
    trainer = train(cfg)  # one process in place of two: twice the iterations, half the batch
    assert trainer.max_iter == 2 * cfg.SOLVER.MAX_ITER
    assert trainer.model.loss_weighter.interval == 2 * cfg.MODEL.ALWA.INTERVAL
