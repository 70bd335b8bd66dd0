"""The figure of losses, loss weights and the statistics that moved them: a column for each run."""

from dataclasses import replace

from matplotlib.figure import Figure

from .curves import draw_losses, draw_steps, use_log_scale
from .runs import STATISTIC, WEIGHT, Run
from .titles import headline, place

STATISTICS = {"ALWA_1": "mean + std", "ALWA_2": "std"}
COLUMNS = 4  # beside each other


def split_pairs(run: Run) -> list[Run]:
    """The run, or one for each pair of losses if it has more of them than one panel can show."""
    if len(run.weighting.pairs) <= 2:
        return [run]
    return [
        replace(
            run,
            name=f"{run.name}: {place(run, pair)}",
            losses=list(pair),
            weighting=replace(run.weighting, pairs=[pair]),
        )
        for pair in run.weighting.pairs
    ]


def draw_column(panels, run: Run) -> None:
    """Losses, weights and, if there is a third panel, statistics of a run, one below the other."""
    losses, weights, *rest = panels
    losses.set_title(headline(run), fontsize=11, parse_math=False)
    draw_losses(losses, run)
    draw_steps(weights, run, WEIGHT, "weight")
    weights.set_ylabel("loss weight")
    if rest and any(STATISTIC + name in run.series for name in run.losses):
        draw_steps(rest[0], run, STATISTIC, "S")
        kind = "unweighted" if run.weighting.rule == "balance" else "weighted"
        what = STATISTICS.get(run.weighting.variant, run.weighting.variant)
        rest[0].set_ylabel(f"S = {what} of the\n{kind} loss in a window")
    elif rest:
        rest.pop().remove()
    panels = (losses, weights, *rest)
    panels[-1].set_xlabel("iteration")
    panels[-1].tick_params(labelbottom=True)
    for axes in panels:
        axes.grid(axis="y", color="0.92", lw=0.6)
        axes.set_xlim(0, None)


def scale_statistics(row) -> None:
    """The common y axis of a line's statistics; runs with fixed weights have no such panel."""
    if row:
        row[0].tick_params(labelleft=True)  # which the first column has, and may not be there
        use_log_scale(row, "\n(log scale)")
        if row[0].get_yscale() == "log":  # room for the legend
            row[0].set_ylim(top=3 * row[0].get_ylim()[1])


def make_figure(runs: list[Run], title: str | None = None) -> Figure:
    """One column per run with the panels losses, weights and, if any run has them, statistics.

    A run of more than two pairs of losses has a column for each of them.
    """
    columns = [part for run in runs for part in split_pairs(run)]
    measured = any(STATISTIC + name in run.series for run in columns for name in run.losses)
    rows, wide = 3 if measured else 2, min(COLUMNS, len(columns))
    lines = [columns[start : start + wide] for start in range(0, len(columns), wide)]
    width = (8.2 if len(columns) <= 2 else 6.0) * wide
    size = (width, (0.8 + 3.1 * rows) * len(lines))
    figure = Figure(figsize=size, layout="constrained")
    blocks = figure.subfigures(len(lines), 1, squeeze=False)[:, 0]
    for block, line in zip(blocks, lines):
        sharing = dict(squeeze=False, sharex="col", sharey="row")
        grid = block.subplots(rows, wide, **sharing, height_ratios=[1.5, 1, 1][:rows])
        for panels, run in zip(grid.T, line):
            draw_column(panels, run)
        for axes in grid[:, len(line) :].flat:
            axes.remove()
        use_log_scale(grid[0, : len(line)])
        if measured:
            scale_statistics([axes for axes in grid[2] if axes.figure is not None])
    if title:
        figure.suptitle(title, fontsize=13, parse_math=False)
    return figure
