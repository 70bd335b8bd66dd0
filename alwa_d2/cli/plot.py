"""Pictures of finished runs: losses, loss weights and the statistics that moved them."""

from pathlib import Path

import shtab

from .options import add_run_arguments, png_path

HELP = "draw losses, loss weights and the statistics that moved them"
DESCRIPTION = """
Draws what finished runs have logged into one picture: a column for each run, with its losses, its
loss weights and the statistics that moved them. --scales and --grid draw other pictures instead.
docs/analyses.md says how to read them.
"""


def add_arguments(parser):
    add_run_arguments(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--scales", dest="kind", action="store_const", const="scales",
        help="draw how large the losses are in the first window, and the ratio of each pair",
    )  # fmt: skip
    kind.add_argument(
        "--grid", dest="kind", action="store_const", const="grid",
        help="draw a small panel for each run, on common axes, with its gain in AP over the run "
        "with weights 1:1",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=png_path, metavar="FILE",
        help="a PNG file; default: losses.png, scales.png or grid.png in the first OUTPUT_DIR",
    ).complete = shtab.FILE  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", help="a line above the whole picture")
    parser.set_defaults(kind="losses")


def run(args) -> int:
    from ..analysis import grid_figure, losses_figure, scales_figure
    from ..analysis.pictures import rasterise, save_png
    from ..analysis.runs import load_run

    figures = {"losses": losses_figure, "scales": scales_figure, "grid": grid_figure}
    runs = [load_run(folder) for folder in args.folders]
    figure = figures[args.kind].make_figure(runs, args.title)
    output = args.output or Path(args.folders[0], f"{args.kind}.png")
    save_png(lambda scale: rasterise(figure, scale), output)
    print(f"wrote {output}")
    return 0
