"""A sheet of test images: ground truth, and beside it what a trained detector finds."""

from pathlib import Path

from .options import add_config_arguments, png_path, positive_int

SCORE = 0.5  # of the detections shown of one model
HELP = "draw a model's detections beside the ground truth"
DESCRIPTION = """
Writes detections.png into the config's OUTPUT_DIR. Detections that match a box of the ground truth
are told apart from those that do not, and boxes that none matches are marked as missed.
"""


def add_sheet_arguments(parser) -> None:
    """Which images, and where to."""
    parser.add_argument("--output", type=png_path, metavar="FILE", help=parser.get_default("where"))
    number = "evenly spread over the set; default: 8"
    parser.add_argument("--num-images", type=positive_int, default=8, metavar="N", help=number)
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")


def add_arguments(parser):
    parser.set_defaults(where="PNG file; default: detections.png in OUTPUT_DIR")
    add_sheet_arguments(parser)
    score = f"lowest score shown; default: {SCORE}"
    parser.add_argument("--score-thresh", type=float, default=SCORE, metavar="SCORE", help=score)
    add_config_arguments(parser)


def run(args) -> int:
    from detectron2.data import MetadataCatalog

    from ..analysis.detections import load_samples
    from ..analysis.pictures import save_png
    from ..analysis.sheet import COLOURS, TILE, make_sheet
    from ..engine import setup_cfg

    cfg = setup_cfg(args.config_file, args.opts)
    name = args.dataset or next(iter(cfg.DATASETS.TEST), "")
    samples = load_samples(cfg, name, args.num_images, args.score_thresh)
    title = f"{name}: {len(samples)} images, detections scored {args.score_thresh:g} or more"
    names = MetadataCatalog.get(name).get("thing_classes", [])
    output = args.output or Path(cfg.OUTPUT_DIR, "detections.png")
    save_png(lambda s: make_sheet(samples, names, title, round(TILE * s)), output, COLOURS)
    print(f"wrote {output}")
    return 0
