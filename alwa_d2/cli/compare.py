"""Finished runs side by side: scores, weights and settings; two runs' detections."""

from pathlib import Path

import shtab

from ..errors import UserError
from .options import add_image_arguments, add_run_arguments, score

IMAGES = 8
HELP = "put finished runs side by side: scores, weights, settings, detections"
DESCRIPTION = """
Prints a table with a column for each run: its scores, its final loss weights, how long an iteration
took, and the settings in which the runs differ.
"""


def add_arguments(parser):
    parser.usage = "%(prog)s [options] OUTPUT_DIR OUTPUT_DIR [OUTPUT_DIR ...]"
    add_run_arguments(parser)
    parser.add_argument(
        "--csv", type=Path, metavar="FILE",
        help="also write the table into a CSV file, unrounded, a row for each run",
    ).complete = shtab.FILE  # fmt: skip
    parser.add_argument(
        "--detections", action="store_true",
        help="also draw what two runs find in images of the test set, and count their false "
        "positives over all of it at equal recall",
    )  # fmt: skip
    group = parser.add_argument_group("with --detections")
    output = "comparison.png in the first OUTPUT_DIR"
    add_image_arguments(group, output, "DATASETS.TEST", IMAGES)
    group.set_defaults(num_images=None)  # so that it is known whether it was given
    group.add_argument(
        "--score-thresh", type=score, metavar="SCORE",
        help="draw the detections at the lower recall of the two runs at this score; default: at "
        "recall 0.5, or at the highest that both reach",
    )  # fmt: skip
    group.add_argument(
        "--opts", metavar="KEY VALUE", nargs="+", default=[],
        help="settings that take the place of those of both configs, such as MODEL.DEVICE cpu",
    )  # fmt: skip


def check(args) -> None:
    """Refuses what goes with --detections where it is missing, and other runs than two with it."""
    if args.detections and len(args.folders) != 2:
        raise UserError(f"--detections: expected two runs, got {len(args.folders)}")
    if not args.detections:
        for name in ("output", "dataset", "num_images", "score_thresh", "opts"):
            if getattr(args, name) not in (None, []):
                raise UserError(f"--{name.replace('_', '-')}: goes with --detections alone")
    if len(args.folders) < 2:
        raise UserError("expected two or more runs, got one OUTPUT_DIR")


def compare_tables(args) -> None:
    """Prints the table, and writes it."""
    from ..analysis.compare_runs import compare_runs, format_table, names_of, write_csv
    from ..analysis.runs import load_run

    runs = [load_run(folder) for folder in args.folders]
    groups = compare_runs(runs)
    print(format_table(names_of(runs, args.folders), groups))
    if args.csv:
        write_csv(args.folders, groups, args.csv)
        print(f"wrote {args.csv}")


def compare_pictures(args) -> None:
    """Prints the false positives of two runs, and draws their detections."""
    from ..analysis.compare_detections import compare_detections
    from ..analysis.pictures import save_png
    from ..analysis.sheet import COLOURS

    which = (args.dataset, args.num_images or IMAGES, args.score_thresh, args.opts)
    comparison = compare_detections(args.folders, *which)
    print(comparison.report())
    output = args.output or Path(args.folders[0], "comparison.png")
    save_png(comparison.draw, output, COLOURS)
    print(*filter(None, [comparison.legend()]), f"wrote {output}", sep="\n")


def run(args) -> int:
    check(args)
    compare_tables(args)
    if args.detections:
        print()
        compare_pictures(args)
    return 0
