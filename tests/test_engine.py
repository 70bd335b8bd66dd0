"""The hook that logs losses and weights, and the evaluators of the trainer."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.utils.events import EventStorage

from alwa_d2.engine import LossWeightLogger, Trainer
from alwa_d2.layers.reference import stats_of
from alwa_d2.weighting import ALWA, Fixed, Following


def train(losses, period, interval=4):
    """Runs a weighter and its hook over (cls, reg) losses; the storage and what it held in between."""
    weighter = ALWA(interval=interval)
    hook = LossWeightLogger(weighter, period)
    scalars = []
    with EventStorage() as storage:
        hook.trainer = SimpleNamespace(storage=storage, max_iter=len(losses), iter=0)
        for i, pair in enumerate(losses):
            hook.trainer.iter = storage.iter = i
            tensors = dict(zip(("loss_cls", "loss_box_reg"), map(torch.tensor, pair)))
            stats = {key: stats_of(torch.tensor([1.0 + i, 3.0 + i])) for key in tensors}
            weighter(tensors, stats)
            hook.after_step()
            scalars.append({name: value for name, (value, _) in storage.latest().items()})
    return scalars


def test_scalars_appear_with_the_period_and_in_the_last_iteration():
    scalars = train([(float(i), 1.0) for i in range(5)], period=3)
    assert not scalars[0] and not scalars[1]
    assert scalars[2] == scalars[3] != scalars[4]
    assert scalars[2]["unweighted/loss_cls"] == 1  # median of 0, 1, 2
    assert scalars[4]["unweighted/loss_cls"] == 3.5  # of 3, 4: since the last time
    assert scalars[2]["per_anchor/cls_mean"] == 4 and scalars[2]["per_anchor/cls_std"] == 1


def test_statistics_appear_when_a_window_has_ended():
    scalars = train([(4.0, 1.0), (2.0, 2.0)] * 4, period=1)
    assert "alwa/stat_cls" not in scalars[2] and scalars[2]["alwa/weight_cls"] == 1
    s_cls, s_reg = (
        math.sqrt(4 / 3),
        math.sqrt(1 / 3),
    )  # sample deviations of 4, 2, 4, 2 and 1, 2, 1, 2
    assert scalars[3]["alwa/stat_cls"] == pytest.approx(s_cls)
    assert scalars[3]["alwa/stat_box_reg"] == pytest.approx(s_reg)
    assert scalars[3]["alwa/weight_cls"] == pytest.approx(0.5)
    assert scalars[3]["alwa/weight_box_reg"] == 1


@pytest.mark.parametrize(
    "cfg", [get_cfg(), {"MODEL": 3}, SimpleNamespace(lr=1)], ids=["1", "2", "3"]
)
def test_a_config_without_alwa_d2s_keys_is_no_hindrance(cfg, caplog):
    hook = LossWeightLogger(Fixed())
    hook.trainer = SimpleNamespace(cfg=cfg)
    with caplog.at_level(logging.INFO):
        hook.before_train()
    assert caplog.messages == [
        "Loss weights: loss_cls, loss_box_reg by Fixed (weights=1:1); any others 1."
    ]


def test_losses_that_are_not_finite_are_reported_once(caplog):
    losses = [(1.0, 1.0)] * 5 + [(math.nan, 1.0)] + [(1.0, math.inf)] * 10
    with caplog.at_level(logging.WARNING):
        train(losses, period=2)
    assert len(caplog.records) == 1
    assert "observed iteration 5" in caplog.text


class Ended(Following):
    """Its second weight is 0."""

    def from_losses(self, losses):
        return torch.tensor([2.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "weighter, said",
    [(Ended("loss_cls", "loss_box_reg", interval=1), 1), (Fixed(weights=[1.0, 0.0]), 0)],
    ids=["a method's", "a user's"],
)
def test_a_weight_that_came_down_to_0_is_said_once(weighter, said, caplog):
    hook = LossWeightLogger(weighter, period=1)
    for i in range(3):
        hook.trainer = SimpleNamespace(storage=EventStorage(), max_iter=3, iter=i)
        weighter({"loss_cls": torch.tensor(1.0), "loss_box_reg": torch.tensor(2.0)})
        hook.after_step()
    text = "The weight of loss_box_reg is 0: with this weight it trains nothing."
    assert caplog.messages == [text] * said


def test_the_device_is_read_when_writing_and_not_in_between(monkeypatch):
    reads = []
    for name in ("tolist", "item", "__float__", "__int__", "__bool__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *a, o=original: reads.append(1) or o(self, *a)
        )
    weighter = ALWA(interval=4)
    hook = LossWeightLogger(weighter, period=20)
    hook.trainer = SimpleNamespace(storage=EventStorage(), max_iter=100, iter=0)
    for i in range(19):
        hook.trainer.iter = i
        weighter({"loss_cls": torch.tensor(1.0), "loss_box_reg": torch.tensor(2.0)})
        hook.after_step()
    assert not reads
    hook.trainer.iter = 19
    hook.after_step()
    assert reads


class Counting(torch.nn.Module):
    """A part of a model that counts anchors, without a weighter."""

    def __init__(self, iterations):
        super().__init__()
        self.counts = iter(iterations)

    def anchor_counts(self):
        return {name: torch.tensor(x) for name, x in next(self.counts).items()}


def test_counts_of_anchors_are_read_with_the_period_and_need_no_weighter():
    model = torch.nn.Sequential(Counting([{"rpn/num_pos_anchors": 2.5}]), Counting([{}]))
    hook = LossWeightLogger(model, period=3)
    with EventStorage() as storage:
        hook.trainer = SimpleNamespace(storage=storage, max_iter=100, iter=0)
        for i in range(4):
            hook.trainer.iter = storage.iter = i
            hook.after_step()  # a second look would find no more counts
    assert storage.latest()["rpn/num_pos_anchors"] == (2.5, 2)


def test_data_sets_without_a_known_evaluator_are_refused():
    MetadataCatalog.get("alwa_d2_test_other").set(evaluator_type="lvis")
    with pytest.raises(ValueError, match="coco or pascal_voc, got 'alwa_d2_test_other' with lvis"):
        Trainer.build_evaluator(None, "alwa_d2_test_other")
    MetadataCatalog.remove("alwa_d2_test_other")
