"""The second step of a sweep: the best cell of each kind again, on seeds that the choice has not
seen."""

import dataclasses
import statistics

from .record import MISSING, Result, scores_of
from .sweep import Cell, Sweep


def second_step(sweep: Sweep, results: list[Result]) -> Sweep | None:
    """
    The sweep of the chosen cells, in the folder `best` of the first one's.

    Of the cells with the same value of `best.of`, and the same labels on the axes that the baseline
    doesn't name, the one with the highest mean of the first metric is chosen, of cells with all
    seeds alone; of equal ones the first. Baselines are always there. Labels of these axes with a
    run that is missing have to wait.

    Args:
        sweep: the first step
        results: of all its runs

    Returns:
        None if the file has no second step, or no cell that can be chosen yet
    """
    if sweep.best is None:
        return None
    waiting = {sweep.free_labels(result.run.cell) for result in results if result.status == MISSING}
    chosen: dict[tuple, tuple[float, Cell]] = {}
    for cell in sweep.cells:
        scores = scores_of(results, cell, sweep.metrics[0])
        if sweep.free_labels(cell) in waiting or len(scores) < len(sweep.seeds):
            continue
        score = statistics.fmean(scores.values())
        group = (cell.settings[sweep.best.of], *sweep.free_labels(cell))
        if group not in chosen or score > chosen[group][0]:
            chosen[group] = (score, cell)
    best = [cell for _, cell in chosen.values()]
    bases = [sweep.baseline_of(cell) for cell in best]
    cells = [cell for cell in sweep.cells if cell in best or cell in bases]
    if not cells:
        return None
    return dataclasses.replace(
        sweep,
        output=sweep.output / "best",
        cells=cells,
        seeds=sweep.best.seeds,
        best=None,
        chosen_of=sweep.best.of,
    )
