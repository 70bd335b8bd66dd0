"""Pictures of finished runs: losses, loss weights and the statistics that moved them.

    python tools/plot_losses.py OUTPUT_DIR [OUTPUT_DIR ...] [--scales | --grid]
        [--output FILE] [--title TITLE]

Reads `metrics.json` and `config.yaml` of each run, and writes into the first one's folder: one
column per run as `losses.png`; with --scales its losses and how far apart they start, as
`scales.png`; with --grid one small panel per run on common axes, as `grid.png`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from curves import draw_losses, draw_steps, headline, use_log_scale
from loss_panels import make_grid, make_scales
from matplotlib.figure import Figure
from pictures import png_path, rasterise, save_png
from runs import STATISTIC, WEIGHT, Run, ToolError, load_run

STATISTICS = {"ALWA_1": "mean + std", "ALWA_2": "std"}
COLUMNS = 4  # beside each other


def split_pairs(run: Run) -> list[Run]:
    """The run, or one for each pair of losses if it has more of them than one panel can show."""
    if len(run.pairs) <= 2:
        return [run]
    names = {pair: f"{run.name}: {run.place(pair)}" for pair in run.pairs}
    return [replace(run, name=names[pair], losses=list(pair), pairs=[pair]) for pair in names]


def draw_column(panels, run: Run) -> None:
    """Losses, weights and, if there is a third panel, statistics of a run, one below the other."""
    losses, weights, *rest = panels
    losses.set_title(headline(run), fontsize=11, parse_math=False)
    draw_losses(losses, run)
    draw_steps(weights, run, WEIGHT, "weight")
    weights.set_ylabel("loss weight")
    if rest and any(STATISTIC + name in run.series for name in run.losses):
        draw_steps(rest[0], run, STATISTIC, "S")
        kind = "unweighted" if run.rule == "balance" else "weighted"
        what = STATISTICS.get(run.variant, run.variant)
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


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Plot losses, loss weights and the statistics that moved them, one column per "
        "run. docs/analyses.md says how to read the figures."
    )
    parser.add_argument("folders", metavar="OUTPUT_DIR", nargs="+", help="a finished run's folder")
    kind = parser.add_mutually_exclusive_group()
    scales = "losses, and below them their scale in the first window with the ratio of each pair"
    kind.add_argument("--scales", dest="kind", action="store_const", const="scales", help=scales)
    grid = "one small panel per run on common axes, with the gain in AP over weights 1:1"
    kind.add_argument("--grid", dest="kind", action="store_const", const="grid", help=grid)
    where = "PNG file; default: losses.png, scales.png or grid.png in the first OUTPUT_DIR"
    parser.add_argument("--output", type=png_path, help=where)
    parser.add_argument("--title", help="a line above the whole figure")
    parser.set_defaults(kind="losses")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    output = args.output or Path(args.folders[0]) / f"{args.kind}.png"
    make = {"losses": make_figure, "scales": make_scales, "grid": make_grid}[args.kind]
    try:
        figure = make([load_run(folder) for folder in args.folders], args.title)
        save_png(lambda scale: rasterise(figure, 110 * scale), output)
    except (ToolError, OSError) as error:
        print("plot_losses:", *str(error).split(), file=sys.stderr)  # on one line
        return 2
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
