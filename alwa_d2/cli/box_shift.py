"""How far a box can slide before other anchors count as positive: curves and a picture."""

import math
from pathlib import Path

from ..errors import UserError
from .options import add_config_arguments, png_path, positive_int

HELP = "measure how far a box may slide before other anchors match"
DESCRIPTION = """
Moves the ground truth and labels the anchors anew: how many stay positive, and their IoU, at each
shift. Draws curves and an example, and writes the numbers into a CSV file beside the picture. Needs
no weights. docs/box_shift.md has the rest.
"""


def add_arguments(parser):
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TRAIN")
    number = "evenly spread over the set; default: 200"
    parser.add_argument("--num-images", type=positive_int, default=200, metavar="N", help=number)
    shifts = dict(type=float, nargs="+", metavar="PX", default=[1, 2, 4, 8, 16, 32, 64])
    pixels = (
        "pixels after resizing, 0 is added; default: 1 2 4 8 16 32 64. Another option has to "
        "follow before KEY VALUE"
    )
    parser.add_argument("--shifts", **shifts, help=pixels)
    parser.add_argument("--image", metavar="ID", help="the example; default: one of median box")
    where = "PNG file, beside which the numbers go as CSV; default: OUTPUT_DIR/box_shift.png"
    parser.add_argument("--output", type=png_path, metavar="FILE", help=where)
    add_config_arguments(parser)


def run(args) -> int:
    import torch

    from ..analysis import box_shift
    from ..analysis.anchor_labels import Labeller, load_samples
    from ..analysis.detections import spread
    from ..analysis.pictures import rasterise, save_png
    from ..engine import setup_cfg

    for shift in args.shifts:
        if not 0 <= shift < math.inf:
            raise UserError(f"--shifts: expected pixels, 0 or more, got {shift:g}")
    cfg = setup_cfg(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
    name = args.dataset or next(iter(cfg.DATASETS.TRAIN), "")
    samples = load_samples(cfg, name)
    example = box_shift.choose(samples, args.image)
    measured = [samples[index] for index in spread(len(samples), args.num_images)]
    labeller = Labeller(cfg)
    rows = box_shift.measure(labeller, measured, sorted({0.0, *args.shifts}))
    boxes = torch.cat([sample.truth.gt_boxes.area() for sample in measured]).sqrt()
    title = (
        f"{name}, {cfg.MODEL.META_ARCHITECTURE}: {len(measured)} images, {len(boxes)} boxes, "
        f"median size {boxes.median():.0f} px"
    )
    figure = box_shift.make_figure(labeller, rows, *example, title)
    output = args.output or Path(cfg.OUTPUT_DIR, "box_shift.png")
    save_png(lambda scale: rasterise(figure, 110 * scale), output)
    numbers = output.with_suffix(".csv")
    box_shift.write_csv(rows, numbers)
    print(title, box_shift.format_table(rows), f"wrote {output} and {numbers}", sep="\n")
    return 0
