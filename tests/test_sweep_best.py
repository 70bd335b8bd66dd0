"""A sweep's second step: the best cell of each kind on other seeds."""

import csv
import shlex
from pathlib import Path

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from sweep_stub import (  # noqa: F401 (a fixture)
    stubbed_folder,
    sweep,
    thresholds,
    write,
)

from alwa_d2.errors import UserError
from alwa_d2.sweep.read import read_sweep

KEY = "MODEL.RPN.NMS_THRESH"
WEIGHT = "MODEL.LOSS_WEIGHTER.WEIGHTS"
LOSS = "MODEL.RPN.BBOX_REG_LOSS_TYPE"
# The stub's AP is 10 times the first weight, plus the seed squared.
GRID = {
    "setting": {
        "a 1": {KEY: 0.7, WEIGHT: [1.0, 1.0]},
        "a 2": {KEY: 0.7, WEIGHT: [2.0, 1.0]},
        "b 3": {KEY: 0.8, WEIGHT: [3.0, 1.0]},
        "b 2": {KEY: 0.8, WEIGHT: [2.5, 1.0]},
    }
}
TWO_STEPS = {
    "grid": GRID,
    "opts": {},
    "seeds": [0, 1],
    "baseline": {"setting": "a 1"},
    "best": {"of": KEY, "seeds": [2, 3, 4]},
}


def best_rows(folder):
    with open(folder / "out" / "best" / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_of_each_kind_and_the_baseline_on_other_seeds(folder, capsys):
    path = write(folder, **TWO_STEPS)
    assert sweep(path) == 0
    rows = best_rows(folder)
    assert [(row["setting"], row["seed"]) for row in rows] == [
        (label, seed) for label in ("a 1", "a 2", "b 3") for seed in "234"
    ]
    assert [float(row["bbox/AP"]) for row in rows[3:6]] == [24, 29, 36]
    assert all(row["status"] == "finished" for row in rows)
    text = (folder / "out" / "best" / "results.md").read_text()
    assert "+20.0" in text and "9 of 9 runs" in text
    assert "best/results.md" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in folder.glob("out/**/run.json")}
    assert len(before) == 8 + 9
    assert sweep(path) == 0 and sweep(path, "--table-only") == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_second_step_waits_for_the_first(folder, capsys):
    path = write(folder, **TWO_STEPS)
    assert sweep(path, "--print-commands", "--output", "other") == 0
    assert capsys.readouterr().out.count(" --output other --run ") == 8
    assert sweep(path, "--table-only") == 0
    assert sweep(path, "--print-commands") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 8  # "wrote ..." of the table before
    assert not (folder / "out" / "best").exists()
    assert sweep(path) == 0
    for run in (folder / "out" / "best").glob("*-seed3-*/run.json"):
        run.unlink()
    capsys.readouterr()
    assert sweep(path, "--print-commands") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert sweep(path, "--run", lines[0].split()[-1]) == 0
    assert len(list((folder / "out" / "best").glob("*-seed3-*/run.json"))) == 1


def test_one_box_loss_does_not_wait_for_another(folder):
    """Labels of an axis that the baseline doesn't name are compared apart, and chosen apart."""
    grid = {**GRID, "box loss": {kind: {LOSS: kind} for kind in ("giou", "smooth_l1")}}
    path = write(folder, **TWO_STEPS | {"grid": grid})
    assert sweep(path) == 0
    whole = best_rows(folder)
    assert len(whole) == 2 * 3 * 3
    next(folder.glob("out/b_2-smooth_l1-*/run.json")).unlink()
    assert sweep(path, "--table-only") == 0
    assert best_rows(folder) == [row for row in whole if row["box loss"] == "giou"]


def test_what_lacks_a_seed_is_not_chosen(folder):
    """A failed run does not make its cell's mean better; the others go on."""
    kinds = {"kind": thresholds(good=0.7, bad=0.1)}
    grid = {"weights": {w: {WEIGHT: [float(w), 1.0]} for w in "12"}, **kinds}
    path = write(folder, **TWO_STEPS | {"grid": grid, "baseline": {"weights": "1"}})
    assert sweep(path) == 1
    assert {row["kind"] for row in best_rows(folder)} == {"good"}
    assert {row["weights"] for row in best_rows(folder)} == {"1", "2"}


def test_results_from_elsewhere_choose_too(folder, tmp_path, capsys):
    path = write(folder, **TWO_STEPS)
    assert sweep(path) == 0
    capsys.readouterr()
    kept = [tmp_path / "first.csv", tmp_path / "second.csv"]
    (folder / "out" / "results.csv").rename(kept[0])
    (folder / "out" / "best" / "results.csv").rename(kept[1])
    arguments = [word for file in kept for word in ("--results", str(file))]
    assert sweep(path, "--output", "third", *arguments[:2], "--print-commands") == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9
    words = shlex.split(printed[0].partition("-m alwa_d2 sweep ")[2])
    assert sweep(*words) == 0
    assert len(list(folder.glob("third/best/*/run.json"))) == 1
    assert sweep(path, "--output", "other", *arguments) == 0
    assert not list(folder.glob("other/**/run.json"))
    assert (folder / "other" / "best" / "results.csv").read_text().count("finished") == 9


@pytest.mark.parametrize(
    "best, message",
    [
        ([], "best: expected a mapping with of (a key that all cells set) and seeds, got []"),
        ({"of": KEY}, "best: expected a mapping with of"),
        ({"of": [KEY], "seeds": [2]}, "best.of: expected a text"),
        ({"of": "MODEL.X", "seeds": [2]}, "best.of: expected a key that all cells set, got 'MODEL.X'"),
        ({"of": KEY, "seeds": [1, 2]}, "best.seeds: expected other seeds than those that the choice is made by, got [1, 2]"),
        ({"of": KEY, "seeds": [2, 2]}, "best.seeds: expected at least one, each of them once"),
        ({"of": KEY, "seeds": "2"}, "best.seeds: expected a list of whole numbers from 0 on"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_named(best, message, tmp_path):
    path = write(tmp_path, **TWO_STEPS | {"best": best})
    with pytest.raises(UserError) as error:
        read_sweep(Path(path), [])
    assert message in str(error.value)


def test_without_a_baseline_all_would_be_the_best(tmp_path):
    path = write(tmp_path, **TWO_STEPS | {"baseline": {}})
    with pytest.raises(UserError, match="baseline: expected one with best, got none"):
        read_sweep(Path(path), [])
