"""Pictures of a sweep: differences to the baseline with their intervals, and scores along an axis
of numbers."""

import math
import statistics

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from ..analysis.curves import HUES
from ..errors import RunError, UserError
from .differences import Difference, compare
from .paired import MIN_PAIRS
from .record import Result, scores_of
from .sweep import Cell, Labels, Sweep, short

BETTER, WORSE, UNCLEAR = HUES[2], HUES[1], "0.45"
COLUMN, LINE = 4.6, 0.3  # inches: width of a panel, height of a cell's line
CHOICE = 0.14  # inches more, where the line says which setting it is
ON_WHITE = withStroke(linewidth=2, foreground="white")  # for text across a line
RING = dict(color="white", mec=UNCLEAR, ms=7)  # a baseline that is the best of its kind
DECADE = 10.0  # numbers of an axis further apart than this are drawn on a log scale


def check_picture(sweep: Sweep, axis: str | None) -> None:
    """
    Refuses, before the first run, what cannot be drawn.

    Args:
        axis: what is drawn along; None for differences to the baseline

    Raises:
        UserError: no such axis, labels of it that are no numbers, or no baseline
    """
    if axis is None:
        if not sweep.baseline:
            raise UserError(f"{sweep.path}: baseline: expected one for --figure, got none")
        seeds = (sweep.best or sweep).seeds
        if len(seeds) < MIN_PAIRS:
            expected = f"expected {MIN_PAIRS} or more for --figure"
            raise UserError(f"{sweep.path}: seeds: {expected}, got {seeds}")
        return
    axes = list(sweep.cells[0].labels)
    if axis not in axes:
        expected = f"expected an axis of {sweep.path} ({', '.join(axes)})"
        raise UserError(f"--along: {expected}, got {axis!r}")
    numbers: set[float] = set()
    for label in dict.fromkeys(cell.labels[axis] for cell in sweep.cells):
        try:
            number = float(label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number in numbers:
            raise UserError(
                f"--along {axis}: expected labels that are different numbers, got {label!r}"
            )
        numbers.add(number)


def _pick(labels: Labels, axes: list[str]) -> tuple[str, ...]:
    return tuple(labels[axis] for axis in axes)


def draw_differences(sweep: Sweep, results: list[Result]) -> Figure:
    """
    A line for each cell: the mean difference to its baseline in the first metric, thick the 95 %
    interval of it alone, thin that of all lines of the picture together. Lines are in the order of
    their means; coloured ones leave 0 out together with all others. In a second step a line is a
    kind, and says in each panel which of its cells was chosen there.

    Raises:
        RunError: no cell can be compared: fewer than three seeds in common, or no variance
    """
    found = compare(sweep, results)
    if not found:
        raise RunError(
            f"{sweep.path}: --figure: expected cells with three finished seeds or more in common "
            "with their baseline, and scores that vary, got none"
        )
    panels = list(dict.fromkeys(sweep.free_labels(item.cell) for item in found))
    rings = [cell for cell in _own_choices(sweep) if sweep.free_labels(cell) in panels]
    names: dict[tuple[str, ...], list[float]] = {}
    for cell, mean in [*((item.cell, item.mean) for item in found), *((x, 0.0) for x in rings)]:
        names.setdefault(_row_of(sweep, cell), []).append(mean)
    rows = sorted(names, key=lambda name: -statistics.fmean(names[name]))
    line = LINE + (CHOICE if sweep.chosen_of else 0)
    size = (2.2 + COLUMN * len(panels), 2.0 + line * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    columns = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for axes, panel in zip(columns, panels):
        shown = [item for item in found if sweep.free_labels(item.cell) == panel]
        _draw_lines(axes, shown, [rows.index(_row_of(sweep, item.cell)) for item in shown])
        base = sweep.baseline_of(shown[0].cell)
        if sweep.chosen_of:
            for item in shown:
                _write_choice(axes, sweep, item.cell, item.mean, rows)
        if base in rings:
            axes.plot(0, rows.index(_row_of(sweep, base)), "o", **RING)
            _write_choice(axes, sweep, base, 0.0, rows)
        title = " ".join(panel) or short(sweep.metrics[0])
        axes.set_title(
            f"{title}; {_of_baseline(sweep, results, base)}", fontsize=10, parse_math=False
        )
        axes.set_xlabel(f"difference in {short(sweep.metrics[0])}")
    columns[0].set_yticks(range(len(rows)), [" ".join(name) for name in rows])
    columns[0].set_ylim(len(rows) - 0.4, -0.6)
    style = dict(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.legend(handles=_legend(len(found), bool(rings)), **style)
    return figure


def _of_baseline(sweep: Sweep, results: list[Result], base: Cell) -> str:
    scores = scores_of(results, base, sweep.metrics[0])
    mean = f"{short(sweep.metrics[0])} {statistics.fmean(scores.values()):.1f}, {len(scores)} seeds"
    return f"0 is {' '.join(sweep.baseline.values())} ({mean})"


def _draw_lines(axes, items: list[Difference], places: list[int]) -> None:
    axes.axvline(0, color="0.2", lw=1)
    axes.grid(axis="x", color="0.92", lw=0.6)
    for item, place in zip(items, places):
        low, high = item.together
        hue = BETTER if low > 0 else WORSE if high < 0 else UNCLEAR
        name = item.cell.name
        axes.plot(item.together, [place, place], color=hue, lw=1, gid=f"together {name}")
        axes.plot(item.alone, [place, place], color=hue, lw=3.4, gid=f"alone {name}")
        axes.plot(item.mean, place, "o", color=hue, mec="white", ms=7, gid=f"mean {name}")
        axes.annotate(
            f"{item.mean:+.1f}", (item.mean, place), (0, 5), textcoords="offset points",
            ha="center", fontsize=8, color=hue, path_effects=[ON_WHITE],
        )  # fmt: skip


def _row_of(sweep: Sweep, cell: Cell) -> tuple[str, ...]:
    """A cell's line: in a second step the kind that it is the best of."""
    return (cell.settings[sweep.chosen_of],) if sweep.chosen_of else sweep.own_labels(cell)


def _own_choices(sweep: Sweep) -> list[Cell]:
    """Of a second step the baselines beside which no other cell of their kind was chosen."""
    if not sweep.chosen_of:
        return []
    places = [(sweep.free_labels(cell), _row_of(sweep, cell)) for cell in sweep.cells]
    return [
        cell
        for cell, place in zip(sweep.cells, places)
        if sweep.baseline_of(cell) is cell and places.count(place) == 1
    ]


def _write_choice(axes, sweep: Sweep, cell: Cell, mean: float, rows: list[tuple[str, ...]]) -> None:
    """Below a dot the setting that it is, without the kind that the line is called."""
    row = _row_of(sweep, cell)
    (kind,) = row
    text = " ".join(sweep.own_labels(cell))
    axes.annotate(
        "" if text == kind else text.removeprefix(f"{kind} "), (mean, rows.index(row)), (0, -6),
        textcoords="offset points", ha="center", va="top", fontsize=7, color="0.35",
        path_effects=[ON_WHITE], parse_math=False,
    )  # fmt: skip


def _legend(count: int, rings: bool) -> list[Line2D]:
    ring = Line2D([], [], marker="o", lw=0, label="the choice is the baseline itself", **RING)
    return [
        Line2D([], [], color=UNCLEAR, lw=3.4, label="95 % interval of this line alone"),
        Line2D([], [], color=UNCLEAR, lw=1, label=f"95 % for all {count} lines together"),
        Line2D([], [], color=BETTER, marker="o", lw=1, label="better than the baseline"),
        Line2D([], [], color=WORSE, marker="o", lw=1, label="worse"),
        *([ring] if rings else []),
    ]


def draw_curves(sweep: Sweep, results: list[Result], axis: str) -> Figure:
    """
    The first metric along an axis of numbers, a curve for each combination of the other axes'
    labels: means over the seeds, each seed as a dot, and a ring around each curve's best mean.
    """
    others = [name for name in sweep.cells[0].labels if name != axis]
    curves: dict[tuple[str, ...], dict[float, list[float]]] = {}
    for cell in sweep.cells:
        scores = list(scores_of(results, cell, sweep.metrics[0]).values())
        if scores:
            curve = curves.setdefault(_pick(cell.labels, others), {})
            curve[float(cell.labels[axis])] = scores
    if not curves:
        raise RunError(f"{sweep.path}: --figure: expected a finished run, got none")
    figure = Figure(figsize=(8.2, 5.4), layout="constrained")
    axes = figure.subplots()
    for (name, points), hue in zip(curves.items(), HUES * len(curves)):
        numbers = sorted(points)
        means = [statistics.fmean(points[number]) for number in numbers]
        axes.plot(
            numbers,
            means,
            "-o",
            color=hue,
            ms=5,
            label=" ".join(name),
            gid=f"mean {' '.join(name)}",
        )
        for number in numbers:
            each = points[number]
            axes.plot([number] * len(each), each, ".", color=hue, ms=4, alpha=0.35)
        best = means.index(max(means))
        axes.plot(numbers[best], means[best], "o", mfc="none", mec=hue, ms=13, mew=1.6)
    reached = [number for points in curves.values() for number in points]
    if reached and min(reached) > 0 and max(reached) / min(reached) > DECADE:
        axes.set_xscale("log")
        axes.set_xticks(sorted(set(reached)), [f"{number:g}" for number in sorted(set(reached))])
        axes.minorticks_off()
    axes.set(xlabel=axis, ylabel=f"{short(sweep.metrics[0])}, mean over seeds (dots: each seed)")
    axes.grid(color="0.92", lw=0.6)
    if others:
        axes.legend(fontsize=9, title="a ring is a curve's best")
    return figure
