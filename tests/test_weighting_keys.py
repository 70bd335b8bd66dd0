"""Each config key of a weighter is the option that it names, and its default is the class's."""

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.config import get_cfg

from alwa_d2 import add_alwa_config
from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY, build_loss_weighter
from alwa_d2.weighting.base import PAIR

W = "MODEL.LOSS_WEIGHTER"


def default_cfg(*opts):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_list(list(opts))
    return cfg


@pytest.mark.parametrize(
    "key, value, attribute",
    [
        (f"{W}.UNCERTAINTY.REVISED", True, "revised"),
        (f"{W}.UNCERTAINTY.LR", 0.5, "learning_rate"),
        (f"{W}.UNCERTAINTY.START", 0.5, "start"),
        (f"{W}.INVERSE.FORM", "softmax", "form"),
        (f"{W}.INVERSE.TEMPERATURE", 0.5, "temperature"),
        (f"{W}.SELFBALANCE.PERIOD", 7, "interval"),
        (f"{W}.SELFBALANCE.RATIO", 0.5, "ratio"),
        (f"{W}.DWA.WINDOW", 7, "interval"),
        (f"{W}.DWA.TEMPERATURE", 0.5, "temperature"),
        (f"{W}.COV.DECAY", 0.5, "decay"),
        (f"{W}.FAMO.LR", 0.5, "lr"),
        (f"{W}.FAMO.DECAY", 0.5, "decay"),
        (f"{W}.GRADNORM.ALPHA", 0.5, "alpha"),
        (f"{W}.GRADNORM.LR", 0.5, "lr"),
        (f"{W}.GRADNORM.WINDOW", 7, "window"),
        ("MODEL.ALWA.VARIANT", "ALWA_1", "variant"),
        ("MODEL.ALWA.RULE", "authors", "rule"),
        ("MODEL.ALWA.INTERVAL", 7, "interval"),
        ("MODEL.ALWA.MIN_WEIGHT", 0.5, "min_weight"),
        ("MODEL.ALWA.FREEZE_AFTER", 7, "freeze_after"),
        ("MODEL.ALWA.DETREND", True, "detrend"),
        ("MODEL.ALWA.SMOOTHING", 0.5, "smoothing"),
        *(
            (f"{W}.SUM_TO", 0.5, f"{name} sum_to")
            for name in ("Inverse", "DWA", "CoV", "RLW", "FAMO")
        ),
    ],
)
def test_each_key_reaches_its_method(key, value, attribute):
    named, _, attribute = attribute.rpartition(" ")
    section = key.split(".")[-2]
    (name,) = (
        name for name, _ in LOSS_WEIGHTER_REGISTRY if name.upper() == (named.upper() or section)
    )
    weighter = build_loss_weighter(default_cfg(f"{W}.NAME", name, key, value), *PAIR)
    assert getattr(weighter, attribute) == value
    usual = build_loss_weighter(default_cfg(f"{W}.NAME", name), *PAIR)
    assert getattr(usual, attribute) != value


def test_shares_reach_inverse():
    target = [["loss_cls", 2.0]]
    cfg = default_cfg(f"{W}.NAME", "Inverse", f"{W}.INVERSE.TARGET", target)
    assert "shares=2:1" in build_loss_weighter(cfg, *PAIR).settings()


@pytest.mark.parametrize("name", dict(LOSS_WEIGHTER_REGISTRY))
def test_a_config_and_a_class_have_the_same_defaults(name):
    built = build_loss_weighter(default_cfg(f"{W}.NAME", name), *PAIR)
    assert built.settings() == LOSS_WEIGHTER_REGISTRY.get(name)(*PAIR).settings()


def test_defaults_are_those_of_the_papers():
    cfg = default_cfg().MODEL.LOSS_WEIGHTER
    assert cfg.DWA.TEMPERATURE == 2 and cfg.GRADNORM.ALPHA == 1.5 and cfg.GRADNORM.LR == 0.025
    assert (cfg.FAMO.LR, cfg.FAMO.DECAY, cfg.SELFBALANCE.RATIO) == (0.025, 1e-3, 1)
