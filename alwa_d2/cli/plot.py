"""Pictures of finished runs: losses, loss weights and the statistics that moved them."""

from pathlib import Path

from .options import png_path

HELP = "draw losses, loss weights and the statistics that moved them"
DESCRIPTION = """
Reads metrics.json and config.yaml of each run and draws one column per run. docs/analyses.md says
how to read the figures.
"""


def add_arguments(parser):
    parser.add_argument("folders", metavar="OUTPUT_DIR", nargs="+", help="a finished run's folder")
    kind = parser.add_mutually_exclusive_group()
    scales = "losses, and below them their scale in the first window with the ratio of each pair"
    kind.add_argument("--scales", dest="kind", action="store_const", const="scales", help=scales)
    grid = "one small panel per run on common axes, with the gain in AP over weights 1:1"
    kind.add_argument("--grid", dest="kind", action="store_const", const="grid", help=grid)
    where = "PNG file; default: losses.png, scales.png or grid.png in the first OUTPUT_DIR"
    parser.add_argument("--output", type=png_path, metavar="FILE", help=where)
    parser.add_argument("--title", help="a line above the whole figure")
    parser.set_defaults(kind="losses")


def run(args) -> int:
    from ..analysis.loss_columns import make_figure
    from ..analysis.loss_panels import make_grid, make_scales
    from ..analysis.pictures import rasterise, save_png
    from ..analysis.runs import load_run

    output = args.output or Path(args.folders[0]) / f"{args.kind}.png"
    make = {"losses": make_figure, "scales": make_scales, "grid": make_grid}[args.kind]
    figure = make([load_run(folder) for folder in args.folders], args.title)
    save_png(lambda scale: rasterise(figure, 110 * scale), output)
    print(f"wrote {output}")
    return 0
