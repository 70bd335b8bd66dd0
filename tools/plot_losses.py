"""A picture of finished runs: losses, loss weights and the statistics that moved them.

    python tools/plot_losses.py OUTPUT_DIR [OUTPUT_DIR ...] [--output FILE] [--title TITLE]

Reads `metrics.json` and `config.yaml` of each run; writes `losses.png` into the first one's folder.
"""

import argparse
import sys
from pathlib import Path

from curves import draw_losses, draw_steps, headline, use_log_scale
from matplotlib.figure import Figure
from pictures import rasterise, save_png
from runs import STATISTIC, WEIGHT, Run, ToolError, load_run

STATISTICS = {"ALWA_1": "mean + std", "ALWA_2": "std"}


def make_figure(runs: list[Run], title: str | None = None) -> Figure:
    """One column per run with the panels losses, weights and, if any run has them, statistics."""
    measured = [any(STATISTIC + name in run.series for name in run.losses) for run in runs]
    rows = 3 if any(measured) else 2
    figure = Figure(figsize=(8.2 * len(runs), 0.8 + 3.1 * rows), layout="constrained")
    sharing = dict(squeeze=False, sharex="col", sharey="row")
    grid = figure.subplots(rows, len(runs), **sharing, height_ratios=[1.5, 1, 1][:rows])
    for run, has_statistics, (losses, weights, *rest) in zip(runs, measured, grid.T):
        losses.set_title(headline(run), fontsize=11)
        draw_losses(losses, run)
        draw_steps(weights, run, WEIGHT, "weight")
        weights.set_ylabel("loss weight")
        if has_statistics:
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
    use_log_scale(grid[0])
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plot losses and loss weights of finished runs.")
    parser.add_argument("folders", metavar="OUTPUT_DIR", nargs="+", help="a finished run's folder")
    parser.add_argument("--output", type=Path, help="PNG file; default: OUTPUT_DIR/losses.png")
    parser.add_argument("--title", help="a line above the whole figure")
    args = parser.parse_args(arguments)
    output = args.output or Path(args.folders[0]) / "losses.png"
    try:
        figure = make_figure([load_run(folder) for folder in args.folders], args.title)
        save_png(lambda scale: rasterise(figure, 110 * scale), output)
    except (ToolError, OSError) as error:
        print("plot_losses:", *str(error).split(), file=sys.stderr)  # on one line
        return 2
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
