"""Figures that compare losses: their scales in the first window, and trends of runs in a grid."""

import math
import textwrap

from matplotlib.figure import Figure

from .curves import HUES, draw_losses, headline, smooth, use_log_scale
from .runs import Run, first_window, gain, label, short_name

COLUMNS = 3  # panels beside each other
TITLE_WIDTH = 52  # characters above a panel


def scale_ratio(run: Run, pair: tuple[str, str]) -> float:
    """Classification loss divided by box loss, means of the first window; NaN at 0."""
    cls, box = (first_window(run, name)[1] for name in pair)
    return cls / box if box > 0 else math.nan


def draw_scales(axes, run: Run) -> None:
    """A bar for the mean of each unweighted loss in the first window, and each pair's ratio."""
    hues = dict(zip(run.losses, HUES * len(run.losses)))
    names = [name for pair in run.pairs for name in pair]
    means = [first_window(run, name)[1] for name in names]
    low = min((mean for mean in means if mean > 0), default=1.0) / 3
    for place, (name, mean) in enumerate(zip(names, means)):
        axes.barh(place, mean - low, left=low, color=hues[name], height=0.7, gid=f"scale {name}")
        axes.text(max(mean, low), place, f" {mean:.3g}", va="center", fontsize=9)
    axes.set_xscale("log")
    high = max((mean for mean in means if mean > 0), default=1.0)
    axes.set_xlim(low, high * (high / low) ** 0.75)  # room for what is written
    for index, pair in enumerate(run.pairs):
        text = f"{run.place(pair)}: class / box = {scale_ratio(run, pair):.2g}"
        where = dict(transform=axes.get_yaxis_transform(), ha="right", va="center")
        axes.text(0.99, 2 * index + 0.5, text, **where, fontsize=11, weight="bold")
        if index:
            axes.axhline(2 * index - 0.5, color="0.85", lw=0.8)
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.invert_yaxis()
    reach = first_window(run, names[0])[0] if names else run.window
    axes.set_xlabel(f"unweighted, mean of what is logged of the first {reach} iterations")


def make_scales(runs: list[Run], title: str | None = None) -> Figure:
    """For each run (a) its losses over iterations, below (b) their scale in the first window."""
    bars = max(1.2, 0.5 * max(2 * len(run.pairs) for run in runs))
    wide = min(COLUMNS, len(runs))
    high = -(-len(runs) // wide)
    figure = Figure(figsize=(8.2 * wide, (5.4 + bars) * high), layout="constrained")
    grid = figure.subplots(2 * high, wide, squeeze=False, height_ratios=[4.2, bars] * high)
    upper, lower = list(grid[::2].flat), list(grid[1::2].flat)
    for run, losses, scales in zip(runs, upper, lower):
        if losses is not upper[0]:
            losses.sharey(upper[0])
        losses.set_title(f"(a) {headline(run)}", fontsize=11, parse_math=False)
        draw_losses(losses, run)
        losses.set_xlabel("iteration")
        losses.set_xlim(0, None)
        losses.grid(axis="y", color="0.92", lw=0.6)
        reach = max([first_window(run, name)[0] for name in run.losses])
        losses.axvspan(0, reach, color="0.93", zorder=0, gid="first window")
        draw_scales(scales, run)
        scales.set_title("(b) how far apart the losses start (grey above)", fontsize=11)
    for axes in upper[len(runs) :] + lower[len(runs) :]:
        axes.remove()
    use_log_scale(upper[: len(runs)])
    if title:
        figure.suptitle(title, fontsize=13, parse_math=False)
    return figure


def grid_title(run: Run, runs: list[Run]) -> str:
    """Weights or rule of the run; its folder; its AP and the gain over its twin with 1:1."""
    weights = run.fixed_weights
    name = f"w_cls : w_box = {weights[0]:g} : {weights[1]:g}" if weights else run.rule_name
    name += "\n" + textwrap.fill(short_name(run.name), TITLE_WIDTH)
    score = run.last("bbox/AP")
    if score is None or not math.isfinite(score):
        return f"{name}\nno AP: {'not evaluated' if score is None else score}"
    if weights == (1.0, 1.0):
        return f"{name}\nAP {score:.1f}, weights 1:1"
    found = gain(run, runs)
    what = f"{found[0]:+.1f} against {found[1]}" if found else "no such run with 1:1 given"
    return f"{name}\nAP {score:.1f}, {what}"


def make_grid(runs: list[Run], title: str | None = None) -> Figure:
    """One panel per run on common axes: its unweighted losses, and in the title the gain in AP.

    Losses that no weighter has, such as the RPN's where the head alone is weighted, are drawn too.
    """
    wide = min(COLUMNS, len(runs))
    high = -(-len(runs) // wide)
    figure = Figure(figsize=(4.6 * wide, 0.9 + 3.6 * high), layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
    names = list(dict.fromkeys(name for run in runs for name in run.all_losses))
    hues = dict(zip(names, HUES * len(names)))
    for axes, run in zip(grid.flat, runs):
        axes.set_title(grid_title(run, runs), fontsize=10, parse_math=False)
        for name, (iterations, values) in run.all_losses.items():
            axes.plot(iterations, values, ".", color=hues[name], ms=3, alpha=0.35)
            line = dict(color=hues[name], lw=2, label=f"{label(name)}", gid=f"trend {name}")
            axes.plot(iterations, smooth(values), **line)
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_xlim(0, None)
    for axes in grid.flat[len(runs) :]:
        axes.remove()
    for index in range(len(runs)):
        if index + wide >= len(runs):  # nothing below it
            grid.flat[index].set_xlabel("iteration")
            grid.flat[index].tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel("unweighted loss")
    use_log_scale(grid.flat[: len(runs)], "")
    handles = {
        line.get_label(): line for axes in grid.flat[: len(runs)] for line in axes.lines[1::2]
    }
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=13, parse_math=False)
    return figure
