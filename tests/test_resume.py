"""Resuming: bit-identical to a run that was never stopped; checkpoints that do not fit."""

import logging
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import DEVICES, REPO
from detectron2.engine import SimpleTrainer, TrainerBase
from toy import INTERVAL, ToyTrainer, read_records, toy_cfg, toy_opts, train

from alwa_d2.engine import Checkpointer, RankState
from alwa_d2.errors import UserError

MODELS = {
    "RetinaNet": ("AlwaRetinaNet",),
    "RetinaNet authors": ("AlwaRetinaNet", "MODEL.ALWA.RULE", "authors"),
    "R-CNN": ("AlwaGeneralizedRCNN",),
    "RetinaNet float16": ("AlwaRetinaNet", "SOLVER.AMP.ENABLED", True),
    "R-CNN bfloat16": (
        "AlwaGeneralizedRCNN", "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16",
    ),
}  # fmt: skip


def cfg_of(name, output_dir, *opts):
    architecture, *more = MODELS[name]
    return toy_cfg(architecture, output_dir, *more, *opts)


def load(path):
    return torch.load(path, weights_only=True)


def assert_same(a, b, where=""):
    """Nested states, to the bit; NaN equals NaN."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=where)
    else:
        assert a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)), where


def what_was_seen(output, rank=0):
    """Iteration -> what it saw, but for its collectives: a first step compares the processes."""
    records = read_records(output, rank)
    return {i: {**row, "collectives": None} for i, row in records.items()}


def assert_same_runs(expected, output):
    assert what_was_seen(expected) == what_was_seen(output)
    # Parameters, buffers, the optimizer's momenta, the schedule and all random states.
    assert_same(load(expected / "model_final.pth"), load(output / "model_final.pth"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Name -> folder of a run of three windows that was never stopped."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("run")
            train(cfg_of(name, folders[name]))
        return folders[name]

    return folder


# The first window ends with iteration 3: one before its end, at it, one after, in the middle.
@pytest.mark.parametrize("stop", [INTERVAL - 1, INTERVAL, INTERVAL + 1, INTERVAL + 2])
@pytest.mark.parametrize("name", MODELS)
def test_resumed_is_bit_identical(name, stop, uninterrupted, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_STOP", f"{stop} raise 0")
    with pytest.raises(RuntimeError, match="stopped for the test"):
        train(cfg_of(name, tmp_path))
    monkeypatch.delenv("TOY_STOP")
    assert max(read_records(tmp_path)) == stop - 1
    torch.rand(5)  # other random state than where it stopped
    assert train(cfg_of(name, tmp_path), resume=True).start_iter == stop
    assert_same_runs(uninterrupted(name), tmp_path)
    weights = {row["weights"]["loss_cls"] for row in read_records(tmp_path).values()}
    assert len(weights) > 1  # or there was nothing to get wrong


def run_toy(output, *opts, env=None, flags=()):
    command = [sys.executable, str(REPO / "tests" / "toy.py"), "--dist-url", "auto", *flags]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), **(env or {})}
    opts = [str(x) for x in toy_opts(*opts[:1], output, *opts[1:])]
    return subprocess.run(command + opts, env=env, capture_output=True, text=True, timeout=300)


def test_killed_between_checkpoints(tmp_path):
    """SIGKILL in iteration 8, whose last checkpoint is of iteration 5; in processes of their own."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    opts = ("AlwaGeneralizedRCNN", "SOLVER.CHECKPOINT_PERIOD", 3)
    done = run_toy(whole, *opts)
    assert done.returncode == 0, done.stderr
    done = run_toy(killed, *opts, env={"TOY_STOP": "8 kill 0"})
    assert done.returncode == -signal.SIGKILL
    assert (killed / "last_checkpoint").read_text() == "model_0000005.pth"
    done = run_toy(killed, *opts, flags=("--resume",))
    assert done.returncode == 0, done.stderr
    assert "Starting training from iteration 6" in done.stdout + done.stderr
    assert_same_runs(whole, killed)


@pytest.fixture
def finished(tmp_path):
    """A finished run of one window and a half, which the tests below resume."""
    train(toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 6))
    return tmp_path


def resume(output, *opts, architecture="AlwaRetinaNet"):
    return train(toy_cfg(architecture, output, "SOLVER.MAX_ITER", 8, *opts), resume=True)


def lines(caplog):
    """What was logged, but for the line at each start that says what weighs which losses."""
    said = [r.getMessage() for r in caplog.records if r.name.startswith("alwa_d2")]
    return [line for line in said if not line.startswith("Loss weights: ")]


class Planted:
    """Runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "content",
    [
        *("truncated", "empty", "noise", "a page", "code", "model alone", "a tensor"),
        "a list for a model",
    ],
)
def test_unusable_checkpoints_are_refused_by_name(content, finished):
    path, planted = finished / "model_final.pth", finished / "planted"
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
        words = "expected a checkpoint, got one that is cut off; copy the file again$"
    elif content == "code":
        torch.save({"model": {}, "trainer": Planted(planted)}, path)
        words = (
            "expected a checkpoint, got one that holds posix.mkdir, which is code to be run; save"
        )
    elif content == "model alone":
        torch.save({"model": load(path)["model"]}, path)
        words = "expected a training's checkpoint to resume from, got one without trainer"
    elif content == "a tensor":
        torch.save(torch.zeros(3), path)
        words = "expected a dictionary, got Tensor"
    elif content == "a list for a model":
        torch.save({"model": [1], "trainer": {}}, path)
        words = "expected a model's state, a dictionary, got list"
    else:
        begins = {"empty": b"", "noise": b"\x00noise", "a page": b"<!DOCTYPE html>\n<html>"}
        path.write_bytes(begins[content])
        words = f"expected a checkpoint, got a file that begins with {re.escape(repr(begins[content]))[:20]}"
        words = words if begins[content] else "expected a checkpoint, got an empty file$"
    with pytest.raises(ValueError, match=words) as error:
        resume(finished)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert not planted.exists()


@pytest.mark.parametrize(
    "opts, words",
    [
        (("AlwaGeneralizedRCNN",), "missing or of another shape: .*, such as proposal_generator"),
        (("AlwaRetinaNet", "MODEL.RETINANET.NUM_CLASSES", 5), "such as head.cls_score"),
    ],
)
def test_another_models_checkpoint_is_refused(opts, words, finished):
    with pytest.raises(ValueError, match=words):
        resume(finished, *opts[1:], architecture=opts[0])


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("slot", torch.tensor([99]), "window of loss_cls and loss_box_reg is broken"),
        ("slot", torch.tensor([-1]), "window of loss_cls and loss_box_reg is broken"),
        (
            "weight_vector",
            torch.tensor([torch.nan, 1.0]),
            "weights of loss_cls and loss_box_reg are broken",
        ),
        (
            "weight_vector",
            torch.tensor([0.5, 7.0]),
            "weights of loss_cls and loss_box_reg are broken",
        ),
    ],
)
def test_a_broken_weighter_begins_anew(name, value, words, finished, caplog):
    path = finished / "model_final.pth"
    checkpoint = load(path)
    checkpoint["model"][f"loss_weighter.{name}"] = value
    torch.save(checkpoint, path)
    with caplog.at_level(logging.INFO):
        trainer = resume(finished)
    assert len(lines(caplog)) == 1 and words in lines(caplog)[0]
    assert trainer.iter == 8 and trainer.model.loss_weighter.weight_vector.isfinite().all()


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.pkl", b"<!DOCTYPE html>", "got a file that begins with b'<!DOCTYPE html>'"),
        ("a.pkl", b"", "got an empty file"),
        ("a.pkl", pickle.dumps([1, 2]), "got one that cannot be read"),
        ("a.pth", pickle.dumps({"a": 1}, 4), "got one that cannot be read"),
    ],
)
def test_weights_to_start_from_that_are_none_are_one_line(name, content, words, tmp_path):
    """Detectron2's own format, too."""
    (tmp_path / name).write_bytes(content)
    model = ToyTrainer.build_model(toy_cfg("AlwaRetinaNet", tmp_path))
    with pytest.raises(UserError) as error:
        Checkpointer(model).load(str(tmp_path / name), checkpointables=[])
    line = str(error.value)
    assert line.startswith(f"{tmp_path / name}: expected a checkpoint, {words}")
    assert "\n" not in line and len(line) < 300 and "weights_only` set to `False" not in line


def test_resuming_where_nothing_was_begun_says_so(tmp_path, caplog):
    cfg = toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 1)
    with caplog.at_level(logging.INFO):
        assert train(cfg, resume=True).start_iter == 0
    words = f"--resume: no checkpoint in {tmp_path}, nothing to go on from; training begins at "
    assert [line for line in lines(caplog) if line.startswith("--resume")] == [
        words + "iteration 0"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        resume(tmp_path)
    assert "--resume" not in caplog.text


def test_a_checkpoint_without_random_states_says_so(finished, caplog):
    path = finished / "model_final.pth"
    checkpoint = load(path)
    del checkpoint["trainer"]["hooks"]["RankState"]
    torch.save(checkpoint, path)
    with caplog.at_level(logging.INFO):
        resume(finished)
    assert len(lines(caplog)) == 1 and "has the state of 0 processes, not of 1" in lines(caplog)[0]


@pytest.mark.parametrize("device", DEVICES)
def test_random_states_come_back(device):
    model = torch.nn.Linear(1, 1).to(device)
    hook = RankState(model, period=1)
    state = hook._own()

    def draw():
        return (
            random.random(),
            np.random.rand(),
            float(torch.rand(1)),
            float(torch.rand(1, device=device)),
        )

    drawn = draw()
    assert draw() != drawn
    hook._restore(state)
    assert draw() == drawn


def test_random_states_in_a_loop_of_ones_own(tmp_path):
    """Detectron2's `SimpleTrainer`, as of a LazyConfig."""
    model = torch.nn.Linear(1, 1)
    model.forward = lambda x: {"loss": (torch.nn.functional.linear(x, model.weight) ** 2).sum()}

    def trainer_of():
        trainer = SimpleTrainer(
            model, [torch.ones(1)] * 9, torch.optim.SGD(model.parameters(), 0.1)
        )
        trainer.register_hooks([hook := RankState(model, period=2)])
        checkpointer = Checkpointer(model, str(tmp_path), trainer=trainer)
        return trainer, checkpointer, hook

    trainer, checkpointer, _ = trainer_of()
    trainer.train(0, 2)
    checkpointer.save("model_0000001")
    drawn = float(torch.rand(1))
    trainer, checkpointer, hook = trainer_of()
    checkpointer.resume_or_load("", resume=True)
    hook.before_train()
    assert float(torch.rand(1)) == drawn


def test_a_trainer_with_several_optimizers_resumes(tmp_path):
    """Which of them has which state is its own affair."""

    class Own(TrainerBase):
        optimizer = [1, 2]

        def state_dict(self):
            return {"optimizer": [{"lr": 1}, {"lr": 2}]}

        def load_state_dict(self, state):
            self.loaded = state

    model, trainer = torch.nn.Linear(1, 1), Own()
    checkpointer = Checkpointer(model, str(tmp_path), trainer=trainer)
    checkpointer.save("model_0000001")
    checkpointer.resume_or_load("", resume=True)
    assert trainer.loaded == trainer.state_dict()
    hook, trainer.start_iter = RankState(model, period=1), 0
    hook.trainer = trainer
    hook.before_train()  # finds no data loader to begin


def test_a_period_of_no_iterations_is_refused(tmp_path):
    with pytest.raises(ValueError, match="SOLVER.CHECKPOINT_PERIOD: expected at least 1, got 0"):
        train(toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.CHECKPOINT_PERIOD", 0))


def test_another_interval_begins_a_new_window(finished, caplog):
    before = load(finished / "model_final.pth")["model"]
    with caplog.at_level(logging.INFO):
        trainer = resume(finished, "MODEL.ALWA.INTERVAL", 5)
    assert len(lines(caplog)) == 1 and "not one of MODEL.ALWA.INTERVAL = 5" in lines(caplog)[0]
    weighter = trainer.model.loss_weighter
    assert int(weighter.slot) == 2 and int(weighter.window_start) == 6  # two iterations since
    assert torch.equal(weighter.weight_vector, before["loss_weighter.weight_vector"])


def test_another_weighter_begins_anew(finished, caplog):
    with caplog.at_level(logging.INFO):
        trainer = resume(finished, "MODEL.LOSS_WEIGHTER.NAME", "Fixed")
    (line,) = lines(caplog)
    assert "for loss_cls and loss_box_reg is of another method" in line and "Fixed begins" in line
    assert type(trainer.model.loss_weighter).__name__ == "Fixed"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        trainer = resume(finished, "SOLVER.MAX_ITER", 10)
    assert (
        len(lines(caplog)) == 1
        and "no state for loss_cls and loss_box_reg: ALWA" in lines(caplog)[0]
    )
    assert int(trainer.model.loss_weighter.slot) == 2


@pytest.mark.parametrize("before, after", [("SGD", "AdamW"), ("AdamW", "SGD")])
def test_another_optimizer_is_refused(before, after, tmp_path):
    train(toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 2, "SOLVER.OPTIMIZER", before))
    with pytest.raises(UserError, match=f"^SOLVER.OPTIMIZER: expected {before}, .* got {after}"):
        resume(tmp_path, "SOLVER.OPTIMIZER", after)


NAME = "MODEL.LOSS_WEIGHTER.NAME"


@pytest.mark.parametrize(
    "before, after",
    [
        (["Uncertainty"], ["Fixed"]),
        (["Fixed"], ["Uncertainty"]),
        (["Uncertainty"], ["Uncertainty", "MODEL.LOSS_WEIGHTER.UNCERTAINTY.REVISED", True]),
    ],
)
def test_a_method_that_learns_in_the_optimizer_cannot_be_changed(before, after, tmp_path):
    train(toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 2, NAME, *before))
    with pytest.raises(
        UserError, match="^[^ ]*model_final.pth: expected .* from or to Uncertainty"
    ):
        resume(tmp_path, NAME, *after)


@pytest.mark.parametrize("losses", ["all", [["loss_cls", "loss_rpn_loc"]]])
def test_a_method_that_learns_in_the_optimizer_keeps_its_losses(losses, tmp_path):
    model, one = (
        "AlwaGeneralizedRCNN",
        ("MODEL.LOSS_WEIGHTER.LOSSES", [["loss_cls", "loss_box_reg"]]),
    )
    train(toy_cfg(model, tmp_path, "SOLVER.MAX_ITER", 2, NAME, "Uncertainty", *one))
    with pytest.raises(UserError, match="expected .* or its LOSSES"):
        resume(tmp_path, NAME, "Uncertainty", one[0], losses, architecture=model)


@pytest.mark.parametrize(
    "other", [("NAME", "DWA", "DWA.WINDOW", 4), ("SELFBALANCE.PERIOD", 2)], ids=["method", "length"]
)
def test_a_window_that_begins_anew_has_nothing_of_the_old_one(other, tmp_path, caplog):
    """Each process's own sums are in the checkpoint a second time."""

    def keys(*names_and_values):
        pairs = zip(names_and_values[::2], names_and_values[1::2])
        return [x for name, value in pairs for x in (f"MODEL.LOSS_WEIGHTER.{name}", value)]

    own = keys("NAME", "SelfBalance", "SELFBALANCE.PERIOD", 4)
    train(toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 6, *own))
    with caplog.at_level(logging.INFO):
        trainer = resume(tmp_path, "SOLVER.MAX_ITER", 7, *own, *keys(*other))
    weighter = trainer.model.loss_weighter
    (seen, _) = weighter.observed
    assert int(weighter.slot) == 1
    assert weighter.total.tolist() == [float(seen[key]) for key in weighter.keys]
    assert len(lines(caplog)) == 1


def test_other_pairs(tmp_path, caplog):
    """A pair that stays goes on, one that goes is left out, one that comes begins anew."""
    rpn = ("MODEL.LOSS_WEIGHTER.LOSSES", [["loss_rpn_cls", "loss_rpn_loc"]])
    model = "AlwaGeneralizedRCNN"
    train(toy_cfg(model, tmp_path, "SOLVER.MAX_ITER", 6))
    with caplog.at_level(logging.INFO):
        trainer = resume(tmp_path, *rpn, architecture=model)
    assert lines(caplog) == [
        "The checkpoint's loss_weighters.loss_cls-loss_box_reg, not in this model, is left out."
    ]
    (weighter,) = trainer.model.loss_weighters.values()
    assert int(weighter.window_start) == 8 and int(weighter.slot) == 0
    caplog.clear()
    with caplog.at_level(logging.INFO):
        trainer = resume(tmp_path, "SOLVER.MAX_ITER", 10, architecture=model)
    assert len(lines(caplog)) == 1 and "no state for loss_cls and" in lines(caplog)[0]
    starts = {w.cls_key: int(w.window_start) for w in trainer.model.loss_weighters.values()}
    assert starts == {"loss_rpn_cls": 8, "loss_cls": 0}


def test_mixed_precision_switched_on_and_off(finished, caplog):
    amp = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION")
    with caplog.at_level(logging.INFO):
        resume(finished, *amp, "bfloat16")
        resume(finished, *amp, "bfloat16", "SOLVER.MAX_ITER", 9)
        resume(finished, *amp, "float16", "SOLVER.MAX_ITER", 10)
        resume(finished, "SOLVER.MAX_ITER", 12)
    assert len(lines(caplog)) == 1 and "GradScaler" in lines(caplog)[0]


def test_a_failing_save_leaves_the_last_checkpoint(finished, monkeypatch):
    """A disk that is full in the middle of writing."""

    def fails(data, file):
        file.write(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(OSError, match="no space left"):
        resume(finished)
    monkeypatch.undo()
    assert (finished / "last_checkpoint").read_text() == "model_final.pth"
    assert resume(finished).start_iter == 6


def test_evaluation_does_not_change_what_training_draws(tmp_path, monkeypatch):
    """An evaluation that draws random numbers, as loaders with workers do."""
    monkeypatch.setattr(
        "detectron2.engine.DefaultTrainer.test",
        classmethod(lambda *a: {"drawn": float(torch.rand(1))}),
    )
    for folder, period in (("with", 2), ("without", 0)):
        train(toy_cfg("AlwaGeneralizedRCNN", tmp_path / folder, "TEST.EVAL_PERIOD", period))
    assert read_records(tmp_path / "with") == read_records(tmp_path / "without")
