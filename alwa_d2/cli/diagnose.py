"""The paper's three conclusions, looked for in finished runs."""

import json
from pathlib import Path

from ..errors import UserError

HELP = "say whether weighting did what the paper says, and what to try"
DESCRIPTION = """
For each run and each pair of its losses: does the classification loss fall faster, were weights
below 1 in force, did the two weights stay close? With the numbers, and the advice that follows.
docs/analyses.md says how they are computed.
"""


def add_arguments(parser):
    parser.add_argument("folders", metavar="OUTPUT_DIR", nargs="+", help="a finished run's folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all of it, unrounded")


def run(args) -> int:
    from ..analysis.diagnosis import diagnose, report
    from ..analysis.runs import load_run

    runs = [load_run(folder) for folder in args.folders]
    for folder, each in zip(args.folders, runs):
        if not each.pairs:
            raise UserError(f"{folder}: no pair of losses among {', '.join(each.losses)}")
    results = [diagnose(each, pair, runs) for each in runs for pair in each.pairs]
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    print(report(results))
    return 0
