"""Each cell of a sweep compared with its baseline, and what chance alone could make of it."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .paired import paired_test
from .record import FINISHED, Result
from .sweep import Cell, Sweep

LEVEL = 0.95
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """A cell's first metric minus its baseline's, over the seeds that both have."""

    cell: Cell
    mean: float
    alone: Interval  # 95 % confidence interval of this one mean
    together: Interval  # the same for all means of the table at once (Bonferroni)
    p: float  # two-sided, of Student's paired t-test
    p_together: float  # corrected for the number of comparisons (Holm)


def first_scores(sweep: Sweep, results: list[Result], cell: Cell) -> dict[int, float]:
    """Seed -> first metric, of the cell's finished runs whose score is a number."""
    done = [r for r in results if r.run.cell is cell and r.status == FINISHED]
    scores = {result.run.seed: result.scores[sweep.metrics[0]] for result in done}
    return {seed: score for seed, score in scores.items() if math.isfinite(score)}


def compare(sweep: Sweep, results: list[Result]) -> list[Difference]:
    """All cells with three seeds or more in common with their baseline, in the sweep's order; those
    whose differences do not vary have no t-test and are left out."""
    tests = {}
    for index, cell in enumerate(sweep.cells):
        base = sweep.baseline_of(cell)
        if base is None or base is cell:
            continue
        own, other = (first_scores(sweep, results, which) for which in (cell, base))
        differences = [own[seed] - other[seed] for seed in own if seed in other]
        test = paired_test(differences)
        if test is not None:
            tests[index] = statistics.fmean(differences), test
    corrected = holm({index: float(test.pvalue) for index, (_, test) in tests.items()})
    return [
        Difference(
            cell=sweep.cells[index],
            mean=mean,
            alone=tuple(test.confidence_interval(LEVEL)),
            together=tuple(test.confidence_interval(1 - (1 - LEVEL) / len(tests))),
            p=float(test.pvalue),
            p_together=corrected[index],
        )
        for index, (mean, test) in tests.items()
    ]


def holm(values: Mapping[int, float]) -> dict[int, float]:
    """p of each comparison -> p such that one below 0.05 among all of them is as rare as that
    (Holm 1979)."""
    corrected, largest = {}, 0.0
    for rank, (index, p) in enumerate(sorted(values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(values) - rank) * p))
        corrected[index] = largest
    return corrected
