"""Resuming: bit-identical to a run that was never stopped; checkpoints that do not fit."""

import logging
import math
import os
import signal
import subprocess
import sys

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

import toy
from conftest import REPO
from toy import INTERVAL, read_records, toy_cfg, toy_opts, train

MODELS = {
    "RetinaNet": ("AlwaRetinaNet",),
    "RetinaNet balance": ("AlwaRetinaNet", "MODEL.ALWA.RULE", "balance"),
    "R-CNN": ("AlwaGeneralizedRCNN",),
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


def assert_same_runs(expected, output):
    assert read_records(expected) == read_records(output)
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
