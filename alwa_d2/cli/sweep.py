"""Trains every run of a grid of settings that has not been trained yet, and tabulates them."""

import contextlib
import os
import shlex
import sys
from pathlib import Path

from ..errors import UserError
from ..sweep.jobs import locked
from ..sweep.plan import Run, make_runs, read_sweep
from ..sweep.table import (
    FAILED,
    FINISHED,
    MISSING,
    check_kept,
    fill_in,
    read_result,
    write_results,
)
from ..sweep.work import work
from .options import positive_int

HELP = "train every run of a grid of settings and seeds, and tabulate them"
DESCRIPTION = """
Trains every run of a sweep that has not been trained yet, each with train_net.py in a folder of its
own, and writes results.csv and results.md into the sweep's folder. All settings are checked before
the first run starts. A sweep that was stopped goes on where it was when it is started again:
finished runs are kept, and a half-finished run is begun anew.
"""


def command_of(run: Run, args) -> str:
    """A line for a shell on any machine that sees these folders; it does what the sweep would."""
    words = [sys.executable, "-m", "alwa_d2", "sweep", str(args.sweep.resolve())]
    words += ["--run", run.hash, *args.opts]
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join(words)}"


def run(args) -> int:
    """The exit status: 0 all done, 1 a run failed, 128 + the signal that stopped the sweep."""
    sweep = read_sweep(args.sweep, args.opts)
    runs = make_runs(sweep)
    if args.run is not None and args.run not in [run.hash for run in runs]:
        raise UserError(f"--run: {args.sweep} has no run {args.run}; was it changed since?")
    printing = args.print_commands or args.table_only
    with contextlib.nullcontext([]) if printing else locked(sweep.output, args.run) as locks:
        results = [read_result(run, sweep.metrics) for run in runs]
        for path in args.results:
            results = fill_in(results, path, sweep.metrics)
        retry = args.retry_failed or args.run is not None
        again = (MISSING, FAILED) if retry else (MISSING,)
        # A reused run is another sweep's: should its files be damaged, it is not ours to train.
        todo = [
            place
            for place, result in enumerate(results)
            if result.run.folder.parent == sweep.output and result.status in again
        ]
        if args.print_commands:
            for place in todo:
                print(command_of(runs[place], args))
            return 0
        if args.run is not None:
            todo = [place for place in todo if runs[place].hash == args.run]
        else:
            check_kept(sweep, results)
            write_results(sweep, results)
        stopped = (
            0
            if args.table_only
            else work(*(sweep, results, todo, args.jobs, locks), table=args.run is None)
        )
    if args.run is None:
        print(f"wrote {sweep.output / 'results.md'} and {sweep.output / 'results.csv'}")
    concerned = [r for r in results if args.run in (None, r.run.hash)]
    failed = any(result.status not in (FINISHED, MISSING) for result in concerned)
    return 128 + stopped if stopped else int(failed)


def add_modes(parser) -> None:
    """The options that change what is done at all."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--print-commands", action="store_true",
        help="Print one shell command for each missing run, for a job array of Slurm, say, and run "
        "nothing. Afterwards --table-only makes the table.",
    )  # fmt: skip
    mode.add_argument(
        "--table-only", action="store_true",
        help="Write the results of what is there, and run nothing.",
    )  # fmt: skip
    mode.add_argument(
        "--run", metavar="HASH",
        help="Do this run alone, unless it has finished, and write no table. It is what the "
        "printed commands use.",
    )  # fmt: skip


def add_arguments(parser) -> None:
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP.yaml", help="This file says what is run."
    )
    parser.add_argument(
        "--jobs", type=positive_int, default=1, metavar="N",
        help="So many runs train at a time and share the cores that the sweep may use: each gets "
        "OMP_NUM_THREADS = cores / N. The default is 1.",
    )  # fmt: skip
    parser.add_argument(
        "--retry-failed", action="store_true",
        help="Runs that have failed are tried again; otherwise they are left as they are. One that "
        "has finished without the metric is never trained again.",
    )  # fmt: skip
    parser.add_argument(
        "--results", type=Path, action="append", default=[], metavar="FILE",
        help="A results.csv of the same runs from another machine or day: those that it has as "
        "finished are not trained, and come into the table. May be given several times.",
    )  # fmt: skip
    add_modes(parser)
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE",
        help="These settings go to all runs, as train_net.py takes them and in place of those of "
        "the file's `opts`; before or after the options.",
    )  # fmt: skip
