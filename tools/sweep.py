"""Trains every run of a grid of settings that has not been trained yet, and tabulates the results.

    python tools/sweep.py SWEEP.yaml [--jobs N] [--retry-failed] [--results FILE] [KEY VALUE ...]
    python tools/sweep.py SWEEP.yaml --print-commands | --table-only [KEY VALUE ...]

Each run is a `train_net.py` of its own with a folder of its own; docs/experiments.md has the rest.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

from runs import ToolError
from sweep_jobs import Job, end, locked, record, start
from sweep_plan import Run, Sweep, make_runs, read_sweep
from sweep_table import (
    FAILED,
    FINISHED,
    MISSING,
    Result,
    check_kept,
    fill_in,
    read_result,
    write_results,
)

POLL = 0.2  # seconds between two looks at the runs
BAR = 20  # characters


class Stop:
    """Becomes true with SIGINT or SIGTERM; a flag, so that no run is left between two lines."""

    def __init__(self):
        self.signal = 0
        both = (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._set) for number in both}

    def _set(self, number, frame):
        self.signal = number

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return bool(self.signal)


class Progress:
    """How far the sweep is: one line that is written over on a terminal, plain lines elsewhere."""

    def __init__(self, results: list[Result], todo: list[int], jobs: int):
        self.total, self.todo, self.jobs = len(results), len(todo), jobs
        kept = [result for place, result in enumerate(results) if place not in todo]
        self.done = sum(result.status == FINISHED for result in kept)
        self.failed = sum(result.status not in (FINISHED, MISSING) for result in kept)
        self.durations = [r.seconds for r in results if r.status == FINISHED and r.seconds]
        self.start = time.monotonic()
        self.is_terminal = sys.stderr.isatty()

    def add(self, result: Result) -> None:
        self.todo -= 1
        self.done += result.status == FINISHED
        self.failed += result.status != FINISHED
        if result.seconds and result.status == FINISHED:
            self.durations.append(result.seconds)

    def left(self, running: list[Job]) -> str:
        """The time left, if every run takes what those took that have finished."""
        if not self.durations:
            return "?"
        mean = sum(self.durations) / len(self.durations)
        seconds = self.todo * mean - sum(min(job.seconds, mean) for job in running)
        return _clock(seconds / max(1, min(self.jobs, self.todo)))

    def line(self, running: list[Job]) -> str:
        elapsed = _clock(time.monotonic() - self.start)
        text = f"[{self.done}/{self.total}] {self.failed} failed, {elapsed} elapsed, "
        text += f"{self.left(running)} left"
        return text + (f"; now: {', '.join(job.run.name for job in running)}" if running else "")

    def event(self, text: str, running: list[Job]) -> None:
        """Something happened: a line that stays."""
        clear = "\r\x1b[K" if self.is_terminal else ""
        print(f"{clear}{text}", file=sys.stderr, flush=True)
        if not self.is_terminal:
            print(self.line(running), file=sys.stderr, flush=True)

    def tick(self, running: list[Job]) -> None:
        if self.is_terminal:
            width = shutil.get_terminal_size().columns - 1
            done = BAR * (self.done + self.failed) // self.total
            line = f"|{'=' * done}{' ' * (BAR - done)}| {self.line(running)}"
            print(f"\r\x1b[K{line[:width]}", end="", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def work(
    sweep: Sweep, results: list[Result], todo: list[int], jobs: int, locks: list[int], table: bool
) -> int:
    """Does the runs at the places `todo` of `results`, which it brings up to date.

    Returns the signal that stopped it, 0 if none did.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    stop, progress = Stop(), Progress(results, todo, jobs)
    waiting, running = list(todo), []
    places = {results[place].run.hash: place for place in todo}
    try:
        while (waiting or running) and not stop:
            while waiting and len(running) < jobs:
                running.append(start(sweep, results[waiting.pop(0)].run, threads, locks))
                progress.event(f"started {running[-1].run.folder}", running)
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                result = results[places[job.run.hash]] = record(sweep, job)
                progress.add(result)
                reason = f": {result.error}" if result.error else f" in {_clock(job.seconds)}"
                progress.event(f"{result.status} {job.run.folder}{reason}", running)
                if table:
                    write_results(sweep, results)
            progress.tick(running)
            time.sleep(POLL if running else 0)
    finally:
        end(running)
        stop.restore()
        progress.event(f"stopped by signal {stop.signal}" if stop else "done", [])
    return stop.signal


def command_of(run: Run, args: argparse.Namespace) -> str:
    """A line for a shell on any machine that sees these folders; it does what the sweep would."""
    words = [sys.executable, str(Path(__file__).resolve()), str(args.sweep.resolve())]
    words += ["--run", run.hash, *args.opts]
    return f"cd {shlex.quote(os.getcwd())} && {shlex.join(words)}"


def run_sweep(args: argparse.Namespace) -> int:
    """The exit status: 0 all done, 1 a run failed, 128 + the signal that stopped the sweep."""
    sweep = read_sweep(args.sweep, args.opts)
    runs = make_runs(sweep)
    if args.run is not None and args.run not in [run.hash for run in runs]:
        raise ToolError(f"--run: {args.sweep} has no run {args.run}; was it changed since?")
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


def add_modes(parser: argparse.ArgumentParser) -> None:
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


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Trains every run of a sweep that has not been trained yet, each with "
        "train_net.py in a folder of its own, and writes results.csv and results.md into the "
        "sweep's folder. All settings are checked before the first run starts. A sweep that was "
        "stopped goes on where it was when it is started again: finished runs are kept, and a "
        "half-finished run is begun anew.",
        epilog="The exit status is 0 if all went well, 1 if a run has failed, 2 if the sweep could "
        "not start, and 128 + N if signal N stopped it.",
    )
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP.yaml", help="This file says what is run."
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N",
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
    args = parser.parse_intermixed_args(arguments)
    if args.jobs < 1:
        parser.error(f"--jobs: expected at least 1, got {args.jobs}")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        return run_sweep(args)
    except (ToolError, OSError) as error:
        print("sweep:", *str(error).split(), file=sys.stderr)  # on one line
        return 2


if __name__ == "__main__":
    sys.exit(main())
