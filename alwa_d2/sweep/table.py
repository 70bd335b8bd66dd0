"""`results.md`: one row a cell; docs/experiments.md says how to read it."""

import math
import statistics
from collections.abc import Iterator

from tabulate import tabulate

from .differences import Interval, compare
from .paired import NONE, difference, mean_and_sd
from .record import FAILED, FINISHED, MISSING, UNSCORED, Result, scores_of, write_atomically
from .scores import NAME, to_csv
from .sweep import Cell, Sweep, short

TITLES = {FAILED: "Failed runs", UNSCORED: "Runs without the metric", MISSING: "Missing runs"}
NOTE = """
Mean ± sample standard deviation over seeds. Δ: mean difference to the baseline over the seeds \
that both have, and in brackets the two-sided p of a paired t-test over them (–: fewer than three \
common seeds, or no variance); p is of that one comparison: of twenty rows without any effect one \
falls below 0.05.
{baseline}
s/iter: median over the runs of each one's median of the logged seconds of an iteration; \
overhead: how much longer than the baseline's, in per cent. Runs side by side, other work on the \
machine, or runs of several machines make this noisy."""
INTERVALS = """
## Intervals of the differences

Δ {metric} with two 95 % intervals. Alone: of one row, for a row that was chosen before its scores \
were seen. All rows: corrected for the number of rows (Bonferroni), so that all true differences \
lie inside with a probability of about 95 %. Both take one standard deviation for all runs, where \
p above takes that of one row's differences.

{table}"""


def _pipe_table(header: list[str], rows: list[list[str]], numbers: int) -> str:
    """In Markdown; the last columns are `numbers`, to the right."""
    lines = [[text.replace("|", "\\|") for text in line] for line in (header, *rows)]
    align = ["left"] * (len(header) - numbers) + ["right"] * numbers
    return tabulate(lines[1:], lines[0], "pipe", disable_numparse=True, colalign=align)


def _cell_row(sweep: Sweep, cell: Cell, results: list[Result]) -> list[str]:
    base = sweep.baseline_of(cell)

    def finished(which: Cell | None) -> list[Result]:
        return [r for r in results if r.run.cell is which and r.status == FINISHED]

    def pace(which: Cell | None) -> float:
        paces = [result.pace for result in finished(which) if result.pace is not None]
        return statistics.median(paces) if paces else math.nan

    row = [*cell.labels.values(), str(len(finished(cell)))]
    row += [mean_and_sd([*scores_of(results, cell, name).values()]) for name in sweep.metrics]
    for name in sweep.metrics:
        delta = difference(scores_of(results, cell, name), scores_of(results, base, name))
        row.append("baseline" if base is cell else delta)
    seconds, overhead = pace(cell), 100 * (pace(cell) / pace(base) - 1)
    row.append(NONE if math.isnan(seconds) else f"{seconds:.3f}")
    return [*row, NONE if base is cell or math.isnan(overhead) else f"{overhead:+.1f}"]


def _interval(ends: Interval) -> str:
    return f"{ends[0]:+.1f} to {ends[1]:+.1f}"


def _intervals(sweep: Sweep, results: list[Result]) -> Iterator[str]:
    """A second table, of the first metric, where there are differences with intervals."""
    rows = [
        [*d.cell.labels.values(), f"{d.mean:+.1f}", _interval(d.alone), _interval(d.together)]
        for d in compare(sweep, results)
    ]
    if rows:
        metric = short(sweep.metrics[0])
        header = [*sweep.cells[0].labels, f"Δ {metric}", "alone", "all rows"]
        yield INTERVALS.format(metric=metric, table=_pipe_table(header, rows, numbers=3))


def _exceptions(results: list[Result]) -> Iterator[str]:
    """Lines on the runs that are not in the table, and on scores that are not."""
    for status, title in TITLES.items():
        some = [result for result in results if result.status == status]
        if some:
            yield f"\n{title}: {len(some)}\n"
        for result in some:
            error = " ".join(result.error.split()).replace("`", "'")
            yield f"- {result.run.name}" + (f" (`{result.run.folder}`): `{error}`" if error else "")
    odd = [
        f"- {result.run.name} (`{result.run.folder}`): {name} is {score}"
        for result in results
        for name, score in result.scores.items()
        if not math.isfinite(score)
    ]
    if odd:
        yield "\nScores that are no numbers, left out above:\n"
        yield from odd


def to_markdown(sweep: Sweep, results: list[Result]) -> str:
    """One row a cell, what the columns mean, and the runs that are not in it."""
    axes = list(sweep.cells[0].labels)
    scores = [short(name) for name in sweep.metrics]
    header = [*axes, "seeds", *scores, *(f"Δ {name} (p)" for name in scores)]
    header += ["s/iter", "overhead %"]
    rows = [_cell_row(sweep, cell, results) for cell in sweep.cells]
    table = _pipe_table(header, rows, numbers=len(header) - len(axes))
    done = sum(result.status == FINISHED for result in results)
    base = ", ".join(f"{axis} {label}" for axis, label in sweep.baseline.items())
    base = f"The baseline is {base}, the other axes equal." if base else "No baseline is named."
    lines = [f"# {sweep.path.stem}\n", f"{done} of {len(results)} runs have finished.\n", table]
    lines += [NOTE.format(baseline=base), *_intervals(sweep, results), *_exceptions(results)]
    return "\n".join(lines) + "\n"


def write_results(sweep: Sweep, results: list[Result]) -> None:
    """Both files of the sweep's folder, also while part of it is still to be done."""
    sweep.output.mkdir(parents=True, exist_ok=True)
    write_atomically(sweep.output / NAME, to_csv(sweep, results))
    write_atomically(sweep.output / "results.md", to_markdown(sweep, results))
