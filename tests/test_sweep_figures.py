"""A sweep's pictures: what is drawn of which numbers, and what cannot be drawn."""

import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from pathlib import Path

from PIL import Image
from sweep_stub import stubbed_folder, sweep, write  # noqa: F401 (a fixture)

from alwa_d2.sweep.differences import compare
from alwa_d2.sweep.figures import draw_curves, draw_differences
from alwa_d2.sweep.record import FINISHED, MISSING, Result
from alwa_d2.sweep.sweep import Cell, Run, Sweep


def make(scores, baseline, seeds=(0, 1, 2)):
    """A sweep and its results, of labels -> scores of the seeds; None is a missing run."""
    cells = [Cell(dict(labels), {}) for labels in scores]
    here = Path("here")
    sweep = Sweep(here, here, here, [], cells, list(seeds), baseline, ["bbox/AP"])
    results = []
    for cell, values in zip(cells, scores.values()):
        for seed, value in zip(seeds, values):
            run = Run(cell, seed, f"{cell.name} {seed}", here)
            status = MISSING if value is None else FINISHED
            results.append(Result(run, status, scores={"bbox/AP": value}))
    return sweep, results


def labels(**axes):
    return tuple(axes.items())


def lines_of(axes):
    return {line.get_gid(): line for line in axes.lines}


# ---- differences


def test_differences_by_hand():
    """Means of cells 10, 12, 31/3, of seeds 10, 32/3, 35/3: squares of 22/9 are left, with four
    degrees of freedom, for which Student's t has a closed form."""
    spec, results = make(
        {labels(w="1:1"): [10, 10, 10], labels(w="a"): [11, 12, 13], labels(w="b"): [9, 10, 12]},
        {"w": "1:1"},
    )
    a, b = compare(spec, results)
    assert (a.cell.name, a.mean) == ("a", 2) and b.mean == pytest.approx(1 / 3)
    error = math.sqrt(22 / 9 / 4 * 2 / 3)

    def quantile(p):
        root = math.sqrt(4 * p * (1 - p))
        return 2 * math.sqrt(math.cos(math.acos(root) / 3) / root - 1)

    for item in (a, b):
        for interval, p in ((item.alone, 0.975), (item.together, 1 - 0.05 / 2 / 2)):
            reach = quantile(p) * error
            assert interval == pytest.approx((item.mean - reach, item.mean + reach), rel=1e-9)


def test_intervals_hold_what_they_promise():
    """Of 400 sweeps of 8 cells like their baseline, all intervals hold 0 in 95 of 100."""
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        seeds = random.normal(0, 3, 3)
        scores = {labels(w=str(i)): list(20 + seeds + random.normal(size=3)) for i in range(9)}
        items = compare(*make(scores, {"w": "0"}))
        held += all(low < 0 < high for low, high in (item.together for item in items))
    assert len(items) == 8 and 0.93 < held / 400 < 0.99


def test_what_cannot_be_compared_is_left_out():
    spec, results = make(
        {
            labels(w="1:1"): [10, 11, 13],
            labels(w="two seeds"): [11, 12, None],
            labels(w="no number"): [11, 12, math.nan],
            labels(w="three"): [10, 12, 13],
        },
        {"w": "1:1"},
    )
    assert [item.cell.name for item in compare(spec, results)] == ["three"]
    # Where no cell has all seeds of its baseline, those that all have.
    scores = {labels(w="1:1"): [10, 11, 13, 9, 7], labels(w="a"): [12, None, 11, 9.5, 8]}
    (part,) = compare(*make(scores, {"w": "1:1"}, seeds=range(5)))
    whole = {key: values[:1] + values[2:] for key, values in scores.items()}
    (same,) = compare(*make(whole, {"w": "1:1"}, seeds=range(4)))
    assert (part.mean, part.alone) == (same.mean, same.alone)
    scores[labels(w="b")] = [None, 10, None, 9, 8]
    assert len(compare(*make(scores, {"w": "1:1"}, seeds=range(5)))) == 2
    scores = {labels(w="1:1"): [0.1, 0.2, 0.3], labels(w="no variance"): [0.4, 0.5, 0.6]}
    assert compare(*make(scores, {"w": "1:1"})) == []


def test_a_panel_for_each_baseline_and_lines_in_the_order_of_means():
    scores = {
        labels(loss="giou", w="1:1"): [10, 10, 10],
        labels(loss="giou", w="worse"): [5.0, 5.1, 4.9],
        labels(loss="giou", w="better"): [15.0, 15.1, 14.9],
        labels(loss="l1", w="1:1"): [20, 20, 20],
        labels(loss="l1", w="worse"): [19, 20, 21.5],
    }
    figure = draw_differences(*make(scores, {"w": "1:1"}))
    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == [
        "giou; 0 is 1:1 (AP 10.0, 3 seeds)",
        "l1; 0 is 1:1 (AP 20.0, 3 seeds)",
    ]
    assert [text.get_text() for text in left.get_yticklabels()] == ["better", "worse"]
    lines = lines_of(left)
    assert list(lines["mean giou worse"].get_data()[0]) == pytest.approx([-5])
    assert list(lines["mean giou worse"].get_data()[1]) == [1]
    hues = {lines[f"together giou {w}"].get_color() for w in ("better", "worse")}
    assert len(hues) == 2
    assert lines_of(right)["together l1 worse"].get_color() not in hues
    alone, together = (
        lines_of(right)[f"{what} l1 worse"].get_xdata() for what in ("alone", "together")
    )
    assert together[0] < alone[0] < alone[1] < together[1]


def draw_second_step(scores):
    """Kinds are the first words of the labels `w`; the baseline is Fixed 1:1."""
    spec, results = make(scores, {"w": "Fixed 1:1"})
    for cell in spec.cells:
        cell.settings["kind"] = cell.labels["w"].split()[0]
    return draw_differences(dataclasses.replace(spec, chosen_of="kind"), results)


def test_in_a_second_step_a_line_is_a_kind_and_says_what_was_chosen():
    """Also where the choice is the baseline itself, which differs by nothing."""
    scores = {
        ("giou", "Fixed 1:1"): [10, 11, 12],
        ("giou", "CoV decay 0.9"): [11, 12, 14],
        ("l1", "Fixed 1:1"): [10, 11, 12],
        ("l1", "Fixed 2:1"): [12, 13, 12],
        ("l1", "CoV decay 0"): [15, 15, 16],
    }
    given = {labels(loss=loss, w=w): values for (loss, w), values in scores.items()}
    figure = draw_second_step(given)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["CoV", "Fixed"]
    assert [text.get_text() for text in left.texts] == ["+1.3", "decay 0.9", "1:1"]
    assert [text.get_text() for text in right.texts][2:] == ["2:1", "decay 0"]
    assert [text.xy for text in left.texts[-1:]] == [(0, 1)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[-1] == "the choice is the baseline itself"


def test_a_choice_without_all_its_seeds_is_not_taken_for_the_baseline():
    given = {
        labels(w="Fixed 1:1"): [10, 11, 12],
        labels(w="Fixed 2:1"): [12, 13, None],
        labels(w="RLW"): [9, 8, 12],
    }
    (axes,) = draw_second_step(given).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["RLW"]
    assert [text.get_text() for text in axes.texts] == ["-1.3", ""]
    # Where no other was chosen, the kind has its ring, also without a line anywhere.
    del given[labels(w="Fixed 2:1")]
    (axes,) = draw_second_step(given).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Fixed", "RLW"]


# ---- curves


def test_curves_along_an_axis_of_numbers():
    scores = {
        labels(rate=rate, w=w): [value, value + 2]
        for w, values in (("1:1", (1, 5, 2)), ("a", (2, 3, 4)))
        for rate, value in zip(("0.01", "1", "0.1"), values)
    }
    (axes,) = draw_curves(*make(scores, {}, seeds=(0, 1)), "rate").axes
    lines = {line.get_gid(): line for line in axes.lines}
    assert lines["mean 1:1"].get_xydata().tolist() == [[0.01, 2], [0.1, 3], [1, 6]]
    rings = [
        line.get_xydata().tolist() for line in axes.lines if line.get_markerfacecolor() == "none"
    ]
    assert rings == [[[1, 6]], [[0.1, 5]]]
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.01", "0.1", "1"]


# ---- the command


def test_the_command_draws(folder, capsys):
    path = write(folder, seeds=[0, 1, 2, 3])
    assert sweep(path, "--along", "weights") == 2
    assert "--along: expected --figure FILE with it" in capsys.readouterr().err
    for along, message in (
        ("rate", "a.yaml (weights), got 'rate'"),
        ("weights", "--along weights: expected labels that are different numbers, got '1.0:1'"),
    ):
        assert sweep(path, "--figure", "a.png", "--along", along) == 2
        assert message in capsys.readouterr().err
    assert sweep(write(folder, baseline={}), "--figure", "a.png") == 2
    assert "baseline: expected one for --figure, got none" in capsys.readouterr().err
    assert sweep(write(folder, seeds=[0, 1]), "--figure", "a.png") == 2
    assert "seeds: expected 3 or more for --figure, got [0, 1]" in capsys.readouterr().err
    assert not (folder / "out").exists()  # refused before the first run

    weight = "MODEL.LOSS_WEIGHTER.WEIGHTS"
    grid = {"weight": {f"{w}": {weight: [w, 1.0]} for w in (1.0, 0.5)}}
    path = write(folder, grid=grid, baseline={"weight": "1.0"})
    assert sweep(path, "--figure", "a.png", "--along", "weight") == 0
    assert Image.open("a.png").width > 500
    # The stub's differences do not vary.
    assert sweep(path, "--table-only", "--figure", "b.png") == 1
    assert "expected cells with three finished seeds or more" in capsys.readouterr().err
    assert not Path("b.png").exists()
