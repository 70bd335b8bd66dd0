"""How far a box can slide before other anchors count as positive: curves and a picture."""

import argparse
import math
from pathlib import Path

from .options import add_config_arguments, add_image_arguments

HELP = "measure how far a box may slide before other anchors match"
DESCRIPTION = """
Moves the ground truth, labels the model's anchors anew, and tells how many stay positive and how
far they overlap. Draws the curves and an example, and writes the numbers into a CSV file beside the
picture. Needs no weights. docs/box_shift.md has the rest.
"""


def pixels(text: str) -> float:
    """An argument that is a distance."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"expected pixels, 0 or more, got {text}")
    return number


def add_arguments(parser):
    output = "box_shift.png in the config's OUTPUT_DIR"
    add_image_arguments(parser, output, "DATASETS.TRAIN", 200)
    parser.add_argument(
        "--shifts", type=pixels, nargs="+", metavar="PX", default=[1, 2, 4, 8, 16, 32, 64],
        help="how far the boxes are moved, in pixels of the resized image, besides 0; default: "
        "1 2 4 8 16 32 64. Another option has to stand between them and KEY VALUE",
    )  # fmt: skip
    parser.add_argument(
        "--image",
        metavar="ID",
        help="the image of the example; default: one with a box of median area",
    )
    add_config_arguments(parser)


def run(args) -> int:
    from ..analysis import box_shift
    from ..analysis.anchor_labels import Labeller, load_samples
    from ..analysis.box_shift_figure import choose_example, make_figure
    from ..analysis.images import spread
    from ..analysis.pictures import rasterise, save_png
    from ..engine import setup_cfg

    cfg = setup_cfg(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    name = args.dataset or next(iter(cfg.DATASETS.TRAIN), "")
    samples = load_samples(cfg, name)
    example = choose_example(samples, args.image)
    measured = [samples[index] for index in spread(len(samples), args.num_images)]
    labeller = Labeller(cfg)
    rows = box_shift.measure(labeller, measured, sorted({0.0, *args.shifts}))
    title = box_shift.describe(name, cfg.MODEL.META_ARCHITECTURE, measured)
    figure = make_figure(labeller, rows, *example, title)
    output = args.output or Path(cfg.OUTPUT_DIR, "box_shift.png")
    save_png(lambda scale: rasterise(figure, scale), output)
    numbers = output.with_suffix(".csv")
    box_shift.write_csv(rows, numbers)
    print(title, box_shift.format_table(rows), f"wrote {output} and {numbers}", sep="\n")
    return 0
