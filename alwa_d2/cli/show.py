"""A sheet of test images: ground truth, and beside it what a trained detector finds."""

from pathlib import Path

from .._show import counted
from .options import add_config_arguments, add_image_arguments, score

SCORE = 0.5
HELP = "draw a model's detections beside the ground truth"
DESCRIPTION = """
Draws images of the test set twice, with their ground truth and with what the model of
MODEL.WEIGHTS finds. True positives, false positives and missed objects have colours of their own.
"""


def add_arguments(parser):
    add_image_arguments(parser, "detections.png in the config's OUTPUT_DIR", "DATASETS.TEST", 8)
    parser.add_argument(
        "--score-thresh", type=score, default=SCORE, metavar="SCORE",
        help=f"the lowest score of a detection that is drawn; default: {SCORE}",
    )  # fmt: skip
    add_config_arguments(parser)


def run(args) -> int:
    from detectron2.data import MetadataCatalog

    from ..analysis.detections import load_samples
    from ..analysis.pictures import save_png
    from ..analysis.sheet import COLOURS, TILE, legends, make_sheet
    from ..engine import setup_cfg

    cfg = setup_cfg(args.config_file, args.opts)
    name = args.dataset or next(iter(cfg.DATASETS.TEST), "")
    samples = load_samples(cfg, name, args.num_images, args.score_thresh)
    title = f"{name}: {counted(len(samples), 'images')}, "
    title += f"detections scored {args.score_thresh:g} or more"
    names = MetadataCatalog.get(name).get("thing_classes", [])
    output = args.output or Path(cfg.OUTPUT_DIR, "detections.png")
    save_png(lambda s: make_sheet(samples, names, title, round(TILE * s)), output, COLOURS)
    print(*filter(None, [legends(samples, names)]), f"wrote {output}", sep="\n")
    return 0
