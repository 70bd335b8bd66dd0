"""The second step of a sweep: the best cell of each kind again, on seeds that the choice has not
seen."""

import dataclasses
import math
import statistics
from collections.abc import Iterable

from .record import FINISHED, MISSING, Result
from .sweep import Cell, Sweep


def second_step(sweep: Sweep, results: list[Result]) -> Sweep | None:
    """
    The sweep of the chosen cells, in the folder `best` of the first one's.

    Of the cells with the same value of `best.of`, and the same labels on the axes that the baseline
    doesn't name, the one with the highest mean of the first metric is chosen, of cells with all
    seeds alone; of equal ones the first. Baselines are always there.

    Args:
        sweep: the first step
        results: of all its runs

    Returns:
        None if the file has no second step, or the first has not ended or no finished cell
    """
    if sweep.best is None or any(result.status == MISSING for result in results):
        return None
    chosen: dict[tuple, tuple[float, Cell]] = {}
    for cell in sweep.cells:
        score = _mean(sweep, [result for result in results if result.run.cell is cell])
        group = _group(sweep, cell)
        if score is not None and (group not in chosen or score > chosen[group][0]):
            chosen[group] = (score, cell)
    best = [cell for _, cell in chosen.values()]
    bases = [sweep.baseline_of(cell) for cell in best]
    cells = [cell for cell in sweep.cells if _is_in(cell, best) or _is_in(cell, bases)]
    if not cells:
        return None
    output = sweep.output / "best"
    return dataclasses.replace(sweep, output=output, cells=cells, seeds=sweep.best.seeds, best=None)


def _group(sweep: Sweep, cell: Cell) -> tuple:
    """What the cells have in common among which one is chosen."""
    others = [label for axis, label in cell.labels.items() if axis not in sweep.baseline]
    return (cell.settings[sweep.best.of], *others)


def _mean(sweep: Sweep, results: Iterable[Result]) -> float | None:
    """Of the first metric, if all runs have it."""
    scores = [r.scores[sweep.metrics[0]] for r in results if r.status == FINISHED]
    if len(scores) < len(sweep.seeds) or not all(map(math.isfinite, scores)):
        return None
    return statistics.fmean(scores)


def _is_in(cell: Cell, cells: Iterable[Cell | None]) -> bool:
    return any(cell is other for other in cells)
