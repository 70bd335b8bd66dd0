"""Learnt loss weights in the optimizer: a group of their own; all else is Detectron2's."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

import toy
from detectron2 import solver
from torch import nn

from alwa_d2.engine import LossWeightLogger, Trainer, optimizer_overrides
from alwa_d2.errors import UserError
from alwa_d2.weighting import Fixed, LossWeighter, Uncertainty

CLIP = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5)
LEARNT = ("MODEL.LOSS_WEIGHTER.NAME", "Uncertainty", "MODEL.LOSS_WEIGHTER.UNCERTAINTY.LR", 0.25)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = nn.GroupNorm(1, 2)
        self.weighter = Uncertainty()


def cfg_of(*opts):
    return toy.toy_cfg("AlwaRetinaNet", "", "SOLVER.WEIGHT_DECAY", 0.5, *opts)


def test_a_group_of_its_own():
    model = Model()
    optimizer = Trainer.build_optimizer(cfg_of(*LEARNT), model)
    (own,) = [g for g in optimizer.param_groups if g["params"][0] is model.weighter.loss_scale]
    assert len(own["params"]) == 1
    # The rate is the weighter's: a config reaches it when the model is built.
    assert (own["lr"], own["weight_decay"], own["momentum"]) == (1e-3, 0, 0.9)
    others = [g for g in optimizer.param_groups if g is not own]
    assert sum(len(g["params"]) for g in others) == 4
    assert all(g["lr"] == 0.01 for g in others)


def test_the_others_groups_are_detectron2s():
    """Weight decay of norms and the rate of biases, too."""
    opts = (
        "SOLVER.WEIGHT_DECAY_NORM",
        0.125,
        "SOLVER.BIAS_LR_FACTOR",
        2.0,
        "SOLVER.NESTEROV",
        True,
    )
    ours, theirs, model = cfg_of(*opts), cfg_of(*opts), Model()
    groups = Trainer.build_optimizer(ours, model).param_groups
    del model.weighter
    expected = solver.build_optimizer(theirs, model).param_groups

    def told(groups):
        return {
            id(x): {key: value for key, value in group.items() if key != "params"}
            for group in groups
            for x in group["params"]
        }

    groups, expected = told(groups), told(expected)
    assert all(groups[x] == expected[x] for x in expected)


def test_without_learnt_weights_it_is_detectron2s():
    optimizer = Trainer.build_optimizer(cfg_of(*CLIP), nn.Linear(2, 2))
    assert type(optimizer).__name__ == "SGDWithGradientClip"


def test_adamw_has_the_same_groups():
    """Rates and weight decay as Detectron2's groups have them; betas and eps are PyTorch's."""
    model, opts = Model(), ("SOLVER.WEIGHT_DECAY_NORM", 0.125, *LEARNT)
    sgd, adamw = (
        Trainer.build_optimizer(cfg_of(*opts, "SOLVER.OPTIMIZER", name), model)
        for name in ("SGD", "AdamW")
    )
    assert (type(adamw), adamw.defaults["betas"]) == (torch.optim.AdamW, (0.9, 0.999))
    for a, b in zip(sgd.param_groups, adamw.param_groups, strict=True):
        assert [id(x) for x in a["params"]] == [id(x) for x in b["params"]]
        assert (a["lr"], a["weight_decay"]) == (b["lr"], b["weight_decay"])


def test_adamw_without_learnt_weights_clips_all():
    model = nn.Linear(2, 2)
    optimizer = Trainer.build_optimizer(cfg_of(*CLIP, "SOLVER.OPTIMIZER", "AdamW"), model)
    for x in model.parameters():
        x.grad = torch.full_like(x, 8.0)
    optimizer.step()
    assert all((x.grad == 0.5).all() for x in model.parameters())
    assert isinstance(optimizer, torch.optim.AdamW)


def test_another_optimizer_is_refused():
    with pytest.raises(UserError, match="SOLVER.OPTIMIZER: expected SGD or AdamW, got 'Adam'"):
        Trainer.build_optimizer(cfg_of("SOLVER.OPTIMIZER", "Adam"), nn.Linear(2, 2))


@pytest.mark.parametrize("clip_type", ["norm", "value"])
def test_clipping_leaves_learnt_weights_out(clip_type):
    """The others step as far as with Detectron2's optimizer."""
    opts = (*CLIP, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", clip_type)
    model, stock = Model(), Model()
    stock.load_state_dict(model.state_dict())
    start = model.weighter.loss_scale.detach().clone()
    for x in (*model.parameters(), *stock.parameters()):
        x.grad = torch.full_like(x, 8.0)
    Trainer.build_optimizer(cfg_of(*opts), model).step()
    del stock.weighter
    solver.build_optimizer(cfg_of(*opts), stock).step()
    for x, y in zip(stock.parameters(), model.parameters()):
        assert torch.equal(x, y)
    torch.testing.assert_close(model.weighter.loss_scale.detach(), start - 1e-3 * 8)


def test_a_weighter_with_parameters_needs_a_rate():
    class Learnt(LossWeighter):
        def __init__(self):
            super().__init__()
            self.own = nn.Parameter(torch.zeros(2))

    with pytest.raises(ValueError, match="Learnt.learning_rate: expected one for own, got None"):
        Trainer.build_optimizer(cfg_of(), Learnt())


def test_two_rates_for_one_name_are_refused():
    two = nn.ModuleList([Uncertainty("a", "b", lr=0.1), Uncertainty("c", "d", lr=0.1)])
    assert optimizer_overrides(two) == {"loss_scale": {"lr": 0.1, "weight_decay": 0.0}}
    two[1].learning_rate = 0.001
    with pytest.raises(ValueError, match="the same one for all .* loss_scale, got 0.1 and 0.001"):
        optimizer_overrides(two)


def test_a_name_that_is_another_parameters_is_refused():
    model = Model()
    model.layer.loss_scale = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match="layer.loss_scale: expected another name"):
        Trainer.build_optimizer(cfg_of(), model)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_training_moves_them_and_resumes_to_the_bit(optimizer, tmp_path):
    """Six iterations, and three with three more after --resume."""
    opts = (*LEARNT, *CLIP, "SOLVER.OPTIMIZER", optimizer)
    courses = []
    for folder, stops in (("whole", [6]), ("parts", [3, 6])):
        for stop in stops:
            cfg = toy.toy_cfg("AlwaRetinaNet", tmp_path / folder, *opts)
            cfg.SOLVER.MAX_ITER = stop
            (tmp_path / folder).mkdir(exist_ok=True)
            toy.train(cfg, resume=stop == 6 and len(stops) == 2)
        records = toy.read_records(tmp_path / folder)
        courses.append([records[i]["weights"] for i in range(6)])
    assert courses[0] == courses[1]
    assert len({tuple(row.values()) for row in courses[0]}) == 6


def warnings_at_the_start(model, optimizer, caplog):
    hook = LossWeightLogger(model)
    hook.trainer = SimpleNamespace(optimizer=optimizer)
    caplog.clear()
    hook.before_train()
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_a_loop_of_ones_own_is_warned_of_learnt_weights_in_the_wrong_group(caplog):
    """Detectron2's own optimizer has them among all others; with `optimizer_overrides` it does not."""
    model = Model()
    stock = solver.build_optimizer(cfg_of(), model)
    (line,) = warnings_at_the_start(model, stock, caplog)
    assert line.startswith(
        "Uncertainty learns the weights of loss_cls and loss_box_reg with the learning rate 0.01 "
        "and weight decay 0.5 of other parameters, not with its own 0.001 and 0. Give "
    )
    without = torch.optim.SGD(model.layer.parameters(), 1)
    (line,) = warnings_at_the_start(model, without, caplog)
    assert line.endswith("but the optimizer does not have its parameters.")
    overrides = optimizer_overrides(model)
    groups = solver.get_default_optimizer_params(model, overrides=overrides)
    optimizer = torch.optim.SGD(groups, 0.01, weight_decay=0.5)
    assert not warnings_at_the_start(model, optimizer, caplog)
    assert not warnings_at_the_start(model, Trainer.build_optimizer(cfg_of(), model), caplog)
    # Its own group may have another rate: of a schedule, or of a checkpoint.
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=10)
    assert not warnings_at_the_start(model, optimizer, caplog)
    assert not warnings_at_the_start(model, None, caplog)  # a trainer with several optimizers
    # In one group with parameters of the same rate, which a warm-up has multiplied.
    cfg = cfg_of("SOLVER.BASE_LR", 1e-3, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.WARMUP_ITERS", 5)
    same = solver.build_optimizer(cfg, model)
    solver.build_lr_scheduler(cfg, same)
    assert same.param_groups[0]["lr"] < 1e-3 and not warnings_at_the_start(model, same, caplog)
    model.weighter.requires_grad_(False)
    assert not warnings_at_the_start(model, without, caplog)
    model.weighter = Fixed()
    assert not optimizer_overrides(model) and not warnings_at_the_start(model, stock, caplog)
