"""The comparison of all weighters, as it is planned: the same budget for each of them."""

import csv
from ast import literal_eval
from collections import Counter

import pytest
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from alwa_d2.sweep.best import second_step
from alwa_d2.sweep.plan import make_runs
from alwa_d2.sweep.read import read_sweep
from alwa_d2.sweep.record import FINISHED, Result
from alwa_d2.sweep.sweep import Run
from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY

SWEEPS = REPO / "sweeps"
NAME = "MODEL.LOSS_WEIGHTER.NAME"
METHODS = {name for name, kind in LOSS_WEIGHTER_REGISTRY if kind.__module__.startswith("alwa_d2.")}


def test_every_method_has_the_same_budget_and_is_reported_on_other_seeds():
    path = SWEEPS / "weighters.yaml"
    sweep = read_sweep(path, [])
    for loss in ("giou", "smooth_l1"):
        cells = [cell for cell in sweep.cells if cell.labels["box loss"] == loss]
        counts = Counter(cell.settings[NAME] for cell in cells)
        assert counts.keys() == METHODS
        assert counts.pop("RLW") == 3 and set(counts.values()) == {6}
    assert (sweep.seeds, sweep.best.of, sweep.best.seeds) == ([0, 1], NAME, [2, 3, 4, 5, 6])


def test_the_second_step_has_each_method_once_and_the_baseline():
    sweep = read_sweep(SWEEPS / "weighters.yaml", [])
    runs = [Run(cell, seed, "", sweep.output) for cell in sweep.cells for seed in sweep.seeds]
    # Later settings are better, but for the fixed weights.
    scores = [-i if run.cell.settings[NAME] == "Fixed" else i for i, run in enumerate(runs)]
    results = [Result(r, FINISHED, scores={"bbox/AP": s}) for r, s in zip(runs, scores)]
    best = second_step(sweep, results)
    for loss in ("giou", "smooth_l1"):
        chosen = [cell for cell in best.cells if cell.labels["box loss"] == loss]
        assert Counter(cell.settings[NAME] for cell in chosen) == dict.fromkeys(METHODS, 1)
    assert len(make_runs(best)) == 5 * 2 * len(METHODS)
    assert all(map(best.baseline_of, best.cells))


def test_two_stage_has_the_settings_that_were_best_with_smooth_l1():
    scores = REPO / "docs" / "results" / "weighters_best.csv"
    with open(scores, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    best = {row["weighting"] for row in rows if row["box loss"] == "smooth_l1"}
    one_stage, two_stage = (
        {cell.labels["weighting"]: cell.settings for cell in read_sweep(path, []).cells}
        for path in (SWEEPS / "weighters.yaml", SWEEPS / "weighters_two_stage.yaml")
    )
    for weighting in best:
        chosen, ours = one_stage[weighting], two_stage.pop(weighting)
        for key in chosen.keys() | ours.keys():
            if key.endswith(("SCHEDULE", "INVERSE.TARGET")):
                # By loss: the RPN's, and the box head's.
                first, second = literal_eval(ours[key])
                assert literal_eval(chosen[key]) == [second]
                assert first == ["loss_rpn_cls", second[1]] and second[0] == "loss_cls"
            elif key.startswith(("MODEL.LOSS_WEIGHTER.", "MODEL.ALWA.")):
                assert chosen[key] == ours[key], (weighting, key)
    assert two_stage.keys() == {"Fixed 1:1 rate 0.04", "Fixed 1:1 rate 0.16"}
