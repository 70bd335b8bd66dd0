"""Each cell of a sweep compared with its baseline, and what chance alone could make of it."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .paired import MIN_PAIRS, NO_VARIANCE
from .record import Result, scores_of
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


def compare(sweep: Sweep, results: list[Result]) -> list[Difference]:
    """
    All cells with three seeds or more in common with their baseline, in the sweep's order.

    Three to five seeds of a cell tell little of how much its scores vary. So one standard deviation
    is taken for all runs: of what is left when the means of cells and of seeds are taken out, as in
    an analysis of variance of two factors, with Student's t of as many degrees of freedom.

    Returns:
        nothing where nothing varies
    """
    from scipy.stats import t

    scores = [scores_of(results, cell, sweep.metrics[0]) for cell in sweep.cells]
    found, blocks = {}, {}  # place of a cell -> differences; of a baseline -> scores of its cells
    for index, cell in enumerate(sweep.cells):
        base = sweep.baseline_of(cell)
        if base is None or base is cell:
            continue
        place = sweep.cells.index(base)
        own, other = scores[index], scores[place]
        differences = [own[seed] - other[seed] for seed in own if seed in other]
        if len(differences) >= MIN_PAIRS:
            found[index] = differences
            blocks.setdefault(place, [other]).append(own)
    spread, freedom = _pool(map(_rows, blocks.values()))
    if not found or not spread:
        return []

    def interval(index: int, level: float) -> Interval:
        mean, count = statistics.fmean(found[index]), len(found[index])
        reach = float(t.ppf((1 + level) / 2, freedom)) * spread * math.sqrt(2 / count)
        return mean - reach, mean + reach

    return [
        Difference(
            cell=sweep.cells[index],
            mean=statistics.fmean(differences),
            alone=interval(index, LEVEL),
            together=interval(index, 1 - (1 - LEVEL) / len(found)),
        )
        for index, differences in found.items()
    ]


def _rows(cells: list[dict[int, float]]) -> list[list[float]]:
    """Scores, cells by seeds: of the first, the baseline, and of all that have its seeds. Where
    none has them, of all on the seeds that they share."""
    whole = [scores for scores in cells if scores.keys() >= cells[0].keys()]
    if len(whole) > 1:
        return [[scores[seed] for seed in cells[0]] for scores in whole]
    shared = [seed for seed in cells[0] if all(seed in scores for scores in cells)]
    return [[scores[seed] for seed in shared] for scores in cells] if len(shared) > 1 else []


def _pool(blocks: Iterable[list[list[float]]]) -> tuple[float, int]:
    """
    Standard deviation of a run and its degrees of freedom, from blocks of scores, cells by seeds.

    Returns:
        a deviation of 0 where there is none but for rounding
    """
    squares, freedom, largest = 0.0, 0, 0.0
    for block in map(np.array, filter(None, blocks)):
        rest = block - block.mean(axis=0) - block.mean(axis=1, keepdims=True) + block.mean()
        squares += float((rest**2).sum())
        freedom += (block.shape[0] - 1) * (block.shape[1] - 1)
        largest = max(largest, float(abs(block).max()))
    spread = math.sqrt(squares / max(freedom, 1))
    return (spread if spread > NO_VARIANCE * largest else 0.0), freedom
