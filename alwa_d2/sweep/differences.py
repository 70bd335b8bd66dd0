"""Each cell of a sweep compared with its baseline, and what chance alone could make of it."""

import math
import statistics
from dataclasses import dataclass

from .paired import MIN_PAIRS, NO_VARIANCE
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


def first_scores(sweep: Sweep, results: list[Result], cell: Cell) -> dict[int, float]:
    """Seed -> first metric, of the cell's finished runs whose score is a number."""
    done = [r for r in results if r.run.cell is cell and r.status == FINISHED]
    scores = {result.run.seed: result.scores[sweep.metrics[0]] for result in done}
    return {seed: score for seed, score in scores.items() if math.isfinite(score)}


def compare(sweep: Sweep, results: list[Result]) -> list[Difference]:
    """
    All cells with three seeds or more in common with their baseline, in the sweep's order.

    Three to five seeds of a cell tell little of how much its differences vary. So one standard
    deviation is taken for all cells, pooled over them, with Student's t of as many degrees of
    freedom as it has.

    Returns:
        nothing where no difference varies at all
    """
    from scipy.stats import t

    found = {}
    for index, cell in enumerate(sweep.cells):
        base = sweep.baseline_of(cell)
        if base is None or base is cell:
            continue
        own, other = (first_scores(sweep, results, which) for which in (cell, base))
        differences = [own[seed] - other[seed] for seed in own if seed in other]
        if len(differences) >= MIN_PAIRS:
            found[index] = differences
    freedom = sum(len(each) - 1 for each in found.values())
    squares = sum(statistics.variance(each) * (len(each) - 1) for each in found.values())
    spread = math.sqrt(squares / max(freedom, 1))
    if not spread > NO_VARIANCE * max((abs(d) for each in found.values() for d in each), default=0):
        return []

    means = {index: statistics.fmean(each) for index, each in found.items()}
    errors = {index: spread / math.sqrt(len(each)) for index, each in found.items()}

    def interval(index: int, level: float) -> Interval:
        reach = float(t.ppf((1 + level) / 2, freedom)) * errors[index]
        return means[index] - reach, means[index] + reach

    return [
        Difference(
            cell=sweep.cells[index],
            mean=means[index],
            alone=interval(index, LEVEL),
            together=interval(index, 1 - (1 - LEVEL) / len(found)),
        )
        for index in found
    ]
