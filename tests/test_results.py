"""The tables of docs/results.md, computed anew from the scores in docs/results/."""

import csv
import math
import statistics

import pytest
from conftest import REPO

PAGE = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
WEIGHTINGS = ("ALWA_1 authors", "ALWA_1 balance", "ALWA_2 authors", "ALWA_2 balance")
NONE = "–"


def read(name, metric):
    """(box loss, C, weighting) -> seed -> score, of the cells that have all three seeds."""
    cells = {}
    with open(REPO / "docs" / "results" / f"{name}.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == "finished":
                cell = cells.setdefault((row["box loss"], row["C"], row["weighting"]), {})
                cell[int(row["seed"])] = float(row[f"bbox/{metric}"])
    return {key: cell for key, cell in cells.items() if cell.keys() == {0, 1, 2}}


LOSSES = [loss for loss, _, weighting in read("table2", "AP") if weighting == "1:1"]


def mean_and_sd(cell):
    values = list(cell.values())
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def delta(own, base):
    """Mean difference, and p of Student's t with two degrees of freedom, which has a closed form."""
    if own is None:
        return NONE
    differences = [own[seed] - base[seed] for seed in base]
    mean, sd = statistics.fmean(differences), statistics.stdev(differences)
    t = abs(mean) / (sd / math.sqrt(3))
    p = 1 - t / math.sqrt(t * t + 2)
    return f"{mean:+.1f} ({f'{p:.3f}' if p >= 0.001 else '< 0.001'})"


def row(*cells):
    return f"| {' | '.join(cells)} |\n"


@pytest.mark.parametrize("loss", LOSSES)
def test_table_2_with_fixed_weights(loss):
    scores = {metric: read("table2", metric) for metric in ("AP", "AP50", "AP75")}
    base = {metric: cells[loss, NONE, "1:1"] for metric, cells in scores.items()}
    half = scores["AP"][loss, NONE, "0.5:1"]
    stock = [mean_and_sd(base[metric]) for metric in scores]
    assert row(loss, *stock, mean_and_sd(half), delta(half, base["AP"])) in PAGE


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_table_2_with_alwa(loss, weighting):
    cells = read("table2", "AP")
    base = cells[loss, NONE, "1:1"]
    found = [cells.get((loss, c, weighting)) for c in ("10", "50", "100")]
    either = cells.get((loss, "200", weighting.replace("authors", "balance")))  # they are the same
    assert row(loss, weighting, *(delta(cell, base) for cell in (*found, either))) in PAGE


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_table_2_over_the_box_losses(weighting):
    cells, texts = read("table2", "AP"), []
    for c in ("10", "50", "100", "200"):
        stand_in = weighting.replace("authors", "balance") if c == "200" else weighting
        pairs = [
            (cells[loss, c, stand_in], cells[loss, NONE, "1:1"])
            for loss in LOSSES
            if (loss, c, stand_in) in cells
        ]
        means = [statistics.fmean(own[seed] - base[seed] for seed in base) for own, base in pairs]
        texts.append(f"{statistics.fmean(means):+.1f} ± {statistics.stdev(means):.1f}")
    assert row("mean ± sd over the box losses", weighting, *texts) in PAGE
