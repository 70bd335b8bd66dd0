"""Scores of runs that are published in docs/results, and their statistics as the pages write them."""

import csv
import math
import statistics

import numpy as np
from conftest import REPO
from scipy.stats import t


def read(name, axes, seeds=(0, 1, 2), metric="AP"):
    """Labels of the axes -> seed -> score, of the cells that have all seeds."""
    cells = {}
    with open(REPO / "docs" / "results" / f"{name}.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cell = cells.setdefault(tuple(row[axis] for axis in axes), {})
            cell[int(row["seed"])] = float(row[f"bbox/{metric}"])
    return {key: cell for key, cell in cells.items() if cell.keys() == set(seeds)}


def by_label(name, seeds, axis="weighting"):
    """The same of a sweep with one axis: label -> seed -> score."""
    return {label: cell for (label,), cell in read(name, (axis,), seeds).items()}


def mean_and_sd(cell):
    values = list(cell.values())
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def gain(own, base):
    return statistics.fmean(own[seed] - base[seed] for seed in base)


def row(*cells):
    return f"| {' | '.join(cells)} |\n"


def by_loss(name, seeds):
    """Box loss -> setting -> seed -> AP."""
    found = {}
    for (loss, setting), cell in read(name, ("box loss", "weighting"), seeds=seeds).items():
        found.setdefault(loss, {})[setting] = cell
    return found


def error_of_differences(losses):
    """Standard error of a difference of two means of five seeds, with one spread for all runs: what
    settings and seeds leave of an analysis of variance, box loss by box loss. And its freedom."""
    squares, freedom = 0.0, 0
    for cells in losses.values():
        scores = np.array([[cell[seed] for seed in sorted(cell)] for cell in cells.values()])
        rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
        squares, freedom = squares + (rest**2).sum(), freedom + 4 * (len(scores) - 1)
    return math.sqrt(squares / freedom * 2 / 5), freedom


def as_texts(mean, error, freedom, rows):
    """A difference with its interval alone, and the interval for all rows."""
    intervals = []
    for tail in (0.025, 0.025 / rows):
        reach = t.ppf(1 - tail, freedom) * error
        intervals.append(f"{mean - reach:+.1f} to {mean + reach:+.1f}")
    return f"{mean:+.1f} ({intervals[0]})", intervals[1]


def differences(cell, base, error, freedom):
    return as_texts(gain(cell, base), error, freedom, freedom // 4)


def paired(own, base, rows=1):
    """The same by the differences of equal seeds alone, as between two learning rates."""
    return _of_gains([own[seed] - base[seed] for seed in base], rows)


def with_t_interval(gains):
    return _of_gains(gains)[0]


def _of_gains(gains, rows=1):
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return as_texts(statistics.fmean(gains), error, len(gains) - 1, rows)


def table(name, seeds, base):
    """A row for each weighting, best first: its AP, and its difference to that of the base."""
    cells = by_label(name, seeds)
    error, freedom = error_of_differences({"all": cells})
    for setting in sorted(cells, key=lambda setting: -gain(cells[setting], cells[base])):
        to_base = differences(cells[setting], cells[base], error, freedom)
        yield row(setting, mean_and_sd(cells[setting]), *(to_base if setting != base else ("", "")))
