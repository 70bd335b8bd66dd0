"""Trains every run of a grid of settings that has not been trained yet, and tabulates them."""

import functools
from pathlib import Path

import shtab

from .options import png_path, positive_int

HELP = "train every run of a grid of settings and seeds, and tabulate them"
DESCRIPTION = """
Trains every run of a sweep that has not been trained yet, each as `alwa-d2 train` does in a folder
of its own, and writes results.csv and results.md into the sweep's folder. All settings are checked
before the first run starts. A file with `best` has a second step: the best cells of the first
again, on other seeds, in the folder best/. A sweep that was stopped goes on when the same command
is given again: finished runs are kept, and a half-finished run is begun anew. docs/experiments.md
says how SWEEP.yaml is written and how to read table and pictures.
"""


def run(args) -> int:
    from ..errors import UserError
    from ..sweep import work

    request = work.Request(args.sweep, args.opts, args.results, args.retry_failed, args.output)
    picture = work.Picture(args.figure, args.along) if args.figure else None
    if picture is None and args.along:
        raise UserError("--along: expected --figure FILE with it, got none")
    if picture and (args.print_commands or args.run_hash is not None):
        raise UserError(
            "--figure: expected none with --print-commands or --run, which write no table"
        )
    if args.slurm and args.cluster != "slurm":
        raise UserError(f"--slurm: expected --cluster slurm with it, got {args.cluster}")
    if args.print_commands:
        for command in work.commands(request):
            print(command)
        return 0
    if args.table_only:
        return work.tabulate(request, picture)
    if args.run_hash is not None:
        return work.train_one(request, args.run_hash)
    slurm = args.slurm if args.cluster == "slurm" else None
    return work.train_all(request, args.jobs, slurm, picture)


def add_machine_arguments(parser) -> None:
    """Where the runs are trained."""
    parser.add_argument(
        "--jobs", type=positive_int, metavar="N",
        help="train N runs at a time, which share this machine's cores (each has OMP_NUM_THREADS "
        "= cores / N), or have at most N jobs in Slurm's queue; default: 1, or all on Slurm",
    )  # fmt: skip
    parser.add_argument(
        "--cluster", choices=("local", "slurm"), default="local",
        help="where to train: on this machine, or each run as a job of Slurm; default: local",
    )  # fmt: skip
    parser.add_argument(
        "--slurm", nargs="+", action="extend", metavar="KEY=VALUE", default=[],
        help="what each job asks Slurm for, by sbatch's names, such as time=60 partition=gpu "
        "gpus_per_node=1 cpus_per_task=8; time, in minutes, has to be there",
    )  # fmt: skip


def add_modes(parser) -> None:
    """The options that change what is done at all."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--table-only",
        action="store_true",
        help="write the results of what is there, train nothing",
    )
    mode.add_argument(
        "--print-commands", action="store_true",
        help="print a shell command for each missing run, for a queue of your own, and train "
        "nothing; --table-only makes the table afterwards",
    )  # fmt: skip
    mode.add_argument(
        "--run", dest="run_hash", metavar="HASH",
        help="train this run alone, unless it has finished, and write no table; the printed "
        "commands use it",
    )  # fmt: skip


def parse_spread(parse, words=None, namespace=None):
    """Takes KEY VALUE behind options too, which argparse does by itself since Python 3.13."""
    namespace, rest = parse(words, namespace)
    if any(word.startswith("-") and not word[1:2].isdigit() for word in rest):
        return namespace, rest  # an unknown option
    namespace.opts = [*namespace.opts, *rest]
    return namespace, []


def add_arguments(parser) -> None:
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP.yaml", help="what is run: base config, grid and seeds"
    )
    add_machine_arguments(parser)
    parser.add_argument(
        "--retry-failed", action="store_true",
        help="try failed runs again, which are otherwise left as they are; one that has finished "
        "without the metric is never trained again",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, action="append", default=[], metavar="FILE",
        help="a results.csv of the same runs from another machine or day: those that it has as "
        "finished are not trained, and come into the table; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR",
        help="the sweep's folder, in place of the file's `output`: for other runs by KEY VALUE",
    ).complete = shtab.DIRECTORY  # fmt: skip
    parser.add_argument(
        "--figure", type=png_path, metavar="FILE",
        help="draw each cell's difference to the baseline in the first metric, with its interval "
        "over the seeds, into a PNG file",
    ).complete = shtab.FILE  # fmt: skip
    parser.add_argument(
        "--along",
        metavar="AXIS",
        help="draw the first metric along this axis of numbers, such as learning rates, instead",
    )
    add_modes(parser)
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE",
        help="settings for all runs that take the place of the file's `opts`, such as "
        "SOLVER.MAX_ITER 600",
    )  # fmt: skip
    parser.parse_known_args = functools.partial(parse_spread, parser.parse_known_args)
