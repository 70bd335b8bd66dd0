"""Two or more finished runs side by side: scores, weights, settings; two runs' detections."""

from ..errors import UserError

HELP = "put finished runs side by side: scores, weights, settings, detections"
DESCRIPTION = """
With --detections the test images of two runs stand side by side, at equal recall, in comparison.png
in the first run's folder, and a table has the false positives of both over the whole data set.
"""


def add_arguments(parser):
    parser.add_argument("folders", metavar="OUTPUT_DIR", nargs="+", help="a finished run's folder")
    parser.add_argument("--detections", action="store_true", help="draw two runs' detections")


def run(args) -> int:
    raise UserError("not there yet")
