"""The figure of trends: one small panel per run, all on the same axes, with the gain in AP."""

import math
import textwrap

import numpy as np
from matplotlib.figure import Figure

from .curves import HUES, smooth, use_log_scale
from .judging import gain
from .loss_names import in_order, label
from .runs import Run
from .titles import rule_name, short_name

COLUMNS = 3  # panels beside each other
TITLE_WIDTH = 52  # characters above a panel


def unweighted_losses(run: Run) -> dict[str, np.ndarray]:
    """Name -> (2, T): each loss without its weight, those that no weighter has included."""
    names = [key.removeprefix("loss_") for key in run.series if key.startswith("loss_")]
    keys = {name: f"unweighted/loss_{name}" for name in in_order(names)}
    return {
        name: run.series[key if key in run.series else f"loss_{name}"] for name, key in keys.items()
    }


def grid_title(run: Run, runs: list[Run]) -> str:
    """Weights or rule of the run; its folder; its AP and the gain over its twin with 1:1."""
    weights = run.fixed_weights
    name = f"w_cls : w_box = {weights[0]:g} : {weights[1]:g}" if weights else rule_name(run)
    name += "\n" + textwrap.fill(short_name(run.name), TITLE_WIDTH)
    score = run.last("bbox/AP")
    if score is None or not math.isfinite(score):
        return f"{name}\nno AP: {'not evaluated' if score is None else score}"
    if weights == (1.0, 1.0):
        return f"{name}\nAP {score:.1f}, weights 1:1"
    found = gain(run, runs)
    what = f"{found[0]:+.1f} against {found[1]}" if found else "no such run with 1:1 given"
    return f"{name}\nAP {score:.1f}, {what}"


def make_figure(runs: list[Run], title: str | None = None) -> Figure:
    """One panel per run on common axes: its unweighted losses, and in the title the gain in AP.

    Losses that no weighter has, such as the RPN's where the head alone is weighted, are drawn too.
    """
    wide = min(COLUMNS, len(runs))
    high = -(-len(runs) // wide)
    figure = Figure(figsize=(4.6 * wide, 0.9 + 3.6 * high), layout="constrained")
    grid = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=True)
    names = list(dict.fromkeys(name for run in runs for name in unweighted_losses(run)))
    hues = dict(zip(names, HUES * len(names)))
    for axes, run in zip(grid.flat, runs):
        axes.set_title(grid_title(run, runs), fontsize=10, parse_math=False)
        for name, (iterations, values) in unweighted_losses(run).items():
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
