"""The figure of how far apart the losses of each run start: their scales in the first window."""

from matplotlib.figure import Figure

from .curves import HUES, draw_losses, use_log_scale
from .judging import first_window, scale_ratio
from .loss_names import label
from .runs import Run
from .titles import headline, place

COLUMNS = 3  # panels beside each other


def draw_scales(axes, run: Run) -> None:
    """A bar for the mean of each unweighted loss in the first window, and each pair's ratio."""
    hues = dict(zip(run.losses, HUES * len(run.losses)))
    names = [name for pair in run.weighting.pairs for name in pair]
    means = [first_window(run, name)[1] for name in names]
    low = min((mean for mean in means if mean > 0), default=1.0) / 3
    for row, (name, mean) in enumerate(zip(names, means)):
        axes.barh(row, mean - low, left=low, color=hues[name], height=0.7, gid=f"scale {name}")
        axes.text(max(mean, low), row, f" {mean:.3g}", va="center", fontsize=9)
    axes.set_xscale("log")
    high = max((mean for mean in means if mean > 0), default=1.0)
    axes.set_xlim(low, high * (high / low) ** 0.75)  # room for what is written
    for index, pair in enumerate(run.weighting.pairs):
        text = f"{place(run, pair)}: class / box = {scale_ratio(run, pair):.2g}"
        where = dict(transform=axes.get_yaxis_transform(), ha="right", va="center")
        axes.text(0.99, 2 * index + 0.5, text, **where, fontsize=11, weight="bold")
        if index:
            axes.axhline(2 * index - 0.5, color="0.85", lw=0.8)
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.invert_yaxis()
    reach = first_window(run, names[0])[0] if names else run.weighting.window
    axes.set_xlabel(f"unweighted, mean of what is logged of the first {reach} iterations")


def make_figure(runs: list[Run], title: str | None = None) -> Figure:
    """For each run (a) its losses over iterations, below (b) their scale in the first window."""
    bars = max(1.2, 0.5 * max(2 * len(run.weighting.pairs) for run in runs))
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
