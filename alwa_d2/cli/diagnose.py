"""The paper's three conclusions, looked for in finished runs."""

import json
from pathlib import Path

import shtab

from ..errors import UserError
from .options import add_run_arguments

HELP = "say whether weighting did what the paper says, and what to try"
DESCRIPTION = """
Answers three questions for each pair of losses of each run: did the classification loss fall
faster, were weights below 1 in force, did the two weights stay close? Prints the numbers, and what
they give cause to try. docs/analyses.md says how they are computed.
"""


def add_arguments(parser):
    add_run_arguments(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all of it into a JSON file, unrounded"
    ).complete = shtab.FILE


def run(args) -> int:
    from ..analysis.diagnosis import diagnose, report
    from ..analysis.runs import load_run

    runs = [load_run(folder) for folder in args.folders]
    for folder, each in zip(args.folders, runs):
        if not each.weighting.pairs:
            raise UserError(f"{folder}: no pair of losses among {', '.join(each.losses)}")
    results = [diagnose(each, pair, runs) for each in runs for pair in each.weighting.pairs]
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    print(report(results))
    return 0
