"""The benchmarks run, agree with their peers, and write what they measured; never how fast."""

import importlib
import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import BOX_KINDS, REPO
from detectron2.utils.events import EventStorage

from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY


@pytest.fixture
def load(monkeypatch):
    """A script of benchmarks/ as a module; they import each other by name."""
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    return importlib.import_module


@pytest.fixture
def run(load, monkeypatch, tmp_path):
    """Runs a script with --json and gives what it wrote."""

    def run(script, *arguments):
        file = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", [script, *arguments, "--json", str(file)])
        load(script).main()
        return json.loads(file.read_text())

    return run


def test_losses(run, capsys):
    figures = run("bench_losses", "--sizes", "small", "--rounds", "1", "--no-compile")
    assert figures["machine"] and figures["threads"] >= 1 and figures["dtype"] == "float32"
    rows = figures["rows"]
    assert all(row["ms"] > 0 for row in rows)
    for case in ("focal", *BOX_KINDS):
        for form in ("flat", "nchw", "nhwc"):
            of_case = [row for row in rows if (row["case"], row.get("form")) == (case, form)]
            peers = {row["peer"]: row for row in of_case}
            assert {"alwa_d2", "copy"} <= set(peers)
            assert peers["alwa_d2"]["to_copy"] > 0 and peers["alwa_d2"]["mib"] > 0
            assert ("Detectron2" in peers) == (case != "iou")
    assert sum(row.get("size") == "100 pairs" for row in rows) > len(BOX_KINDS)
    assert any(row["case"] == "overhead" and row["to_sum"] > 0 for row in rows)
    assert "apex: left out" in capsys.readouterr().out


def test_bfloat16(run):
    arguments = ("--sizes", "small", "--rounds", "1", "--no-compile", "--dtype", "bfloat16")
    assert run("bench_losses", *arguments)["rows"]


def test_scaling(run):
    arguments = ("--scaling", "--scaling-logits", "1000", "20000", "--rounds", "1")
    rows = run("bench_losses", *arguments)["rows"]
    fits = {row["classes"]: row["fit"] for row in rows if "fit" in row}
    assert set(fits) == {3, 20, 80}
    assert all(row["ns_per_logit"] > 0 for row in rows if "fit" not in row)


def test_step(run):
    rows = run("bench_step", "--sizes", "small", "--rounds", "1")["rows"]
    assert {"anchor labelling", "losses, forward", "loss side", "whole step"} <= {
        row["part"] for row in rows
    }
    for row in rows:
        assert set(row["ms"]) == {"Detectron2", "alwa_d2"}


def test_weighters(run):
    rows = run("bench_weighters", "--rounds", "1")["rows"]
    assert rows[0]["weighter"] == "Fixed" and rows[0]["more"] == 0
    names = {name for name, _ in LOSS_WEIGHTER_REGISTRY}
    assert {row["weighter"] for row in rows} == {*names, "Fixed again"}
    assert all(row["ms"] > 0 for row in rows)
    assert [row["weighter"] for row in rows if row["alone"] is None] == ["GradNorm"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_graphs_without_a_gpu_are_refused_in_one_line():
    script = str(REPO / "benchmarks" / "bench_step.py")
    done = subprocess.run([sys.executable, script, "--graph"], capture_output=True, text=True)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("--graph: expected a GPU, got none"), done.stderr
    assert not done.stdout and "Traceback" not in done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs(run):
    rows = run("bench_step", "--sizes", "small", "--graph")["rows"]
    assert rows[0]["part"] == "loss side" and rows[0]["ms"].keys() == {"eager", "graph"}


def test_what_is_captured_is_the_training_step(load):
    """Padded, cut off from the network and without the weighter's step: the same gradients."""
    bench_step, graphs = load("bench_step"), load("graphs")
    batch = bench_step.make_batch("small")
    models = [bench_step.make_model("AlwaRetinaNet", "small", "cpu") for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    with EventStorage():
        losses = models[0](batch)
    sum(losses.values()).backward()
    expected = [p.grad for p in models[0].parameters() if p.grad is not None]
    graphed = graphs.GraphedModel(models[1], batch)
    state = graphed.saved_state()
    side = graphed.loss_side()
    models[1].load_state_dict(state)
    for found, loss in zip(side, losses.values()):
        torch.testing.assert_close(found, loss)
    assert all(x.shape == y.shape for x, y in zip(side[2:], sum(graphed.predictions, [])))
    for found, other in zip(graphed.whole_step()[2:], expected, strict=True):
        torch.testing.assert_close(found, other)
    graphed.end_iteration()
    assert torch.equal(models[0].loss_normalizer, models[1].loss_normalizer)
    assert torch.equal(models[0].loss_weighter.window[0], models[1].loss_weighter.window[0])


def test_a_wrong_peer_is_not_timed(load):
    measure = load("measure")
    x = [torch.arange(4.0)]
    runs = {
        "alwa_d2": measure.Run(lambda leaves: leaves[0].square().sum(), x),
        "other": measure.Run(lambda leaves: leaves[0].square().sum() * 1.001, x),
    }
    with pytest.raises(AssertionError, match="other: "):
        measure.check_agreement(runs, "alwa_d2", 1e-4)


def test_peak_memory(load):
    """A product and the gradient are never there at once; 1 MiB each."""
    run = load("measure").Run(lambda leaves: (leaves[0] * 2).sum(), [torch.ones(2**18)])
    run()
    assert run.mebibytes() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("form", ["flat", "nchw", "nhwc"])
def test_rows_are_found_in_every_form(load, form):
    compiled, inputs = load("compiled"), load("inputs")
    x = inputs.make_inputs("small", form)
    rows = compiled.rare((x.labels != x.classes).view(-1))
    assert len(rows) == 140 and x.labels.shape == (2, 4842)
    flats = compiled.in_memory_order(x.logits, form)
    found, where = compiled.gather(flats, rows, x, x.classes)
    expected = inputs.make_inputs("small").logits[0].view(-1, x.classes)[rows]
    assert torch.equal(found, expected)
    assert torch.equal(torch.cat(flats)[where], expected)
    for level, same in zip(compiled.like_levels(torch.cat(flats), x.logits, form), x.logits):
        assert torch.equal(level, same) and level.stride() == same.stride()
