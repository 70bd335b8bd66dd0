"""The comparison of all weighters, as it is planned: the same budget for each of them."""

from collections import Counter

import pytest
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from alwa_d2.sweep.plan import make_runs
from alwa_d2.sweep.read import read_sweep
from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY

NAME = "MODEL.LOSS_WEIGHTER.NAME"
METHODS = {name for name, kind in LOSS_WEIGHTER_REGISTRY if kind.__module__.startswith("alwa_d2.")}


def read(name):
    path = REPO / "sweeps" / f"{name}.yaml"
    sweep = read_sweep(path, [])
    runs = make_runs(sweep)
    assert f": {len(runs)} runs." in path.read_text().split("config:")[0]
    assert all(map(sweep.baseline_of, sweep.cells))
    return sweep


def test_every_method_has_the_same_budget_and_the_report_has_other_seeds():
    choice, report = read("weighters"), read("weighters_report")
    for loss in ("giou", "smooth_l1"):
        cells = [cell for cell in choice.cells if cell.labels["box loss"] == loss]
        counts = Counter(cell.settings[NAME] for cell in cells)
        assert counts.keys() == METHODS
        assert counts.pop("RLW") == 3 and set(counts.values()) == {6}
    assert {cell.settings[NAME] for cell in report.cells} == METHODS
    assert (choice.seeds, report.seeds) == ([0, 1], [2, 3, 4, 5, 6])


def test_what_is_reported_was_among_the_choices():
    """But for the learning rate, at which the choice was made."""
    choice, report = read("weighters"), read("weighters_report")
    known = [cell.settings for cell in choice.cells]
    for cell in report.cells:
        settings = {k: v for k, v in cell.settings.items() if k != "SOLVER.BASE_LR"}
        assert settings in known, cell.name
