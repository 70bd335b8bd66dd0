"""The runs of a sweep, done one after the other or side by side until all have ended."""

import signal
import time
from collections.abc import Sequence
from typing import Any, Protocol

from .progress import Progress, clock
from .record import FAILED, MISSING, Result, read_result
from .sweep import Run, Sweep
from .table import write_results


class Job(Protocol):
    """A run that has been given to a machine."""

    run: Run
    seconds: float  # that it has been at work

    def has_ended(self) -> bool:
        """Whether it has; then its record is written."""


class Machine(Protocol):
    """What runs are trained on: a `local.Local` or a `slurm.Slurm`."""

    jobs: int  # at a time
    poll: float  # seconds between two looks at the jobs

    def find(self, run: Run) -> Job | None:
        """The job of an earlier sweep that still does this run."""

    def start(self, run: Run) -> tuple[Job, str]:
        """Begins a run anew, and says so."""

    def leave(self, running: Sequence[Any]) -> str:
        """The sweep ends while these are at work; what is to be said about them."""


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


class Loop:
    """
    Does runs of a sweep, and keeps its results up to date.

    Args:
        sweep: the sweep
        results: of all its runs, changed as runs end
        machine: trains them
        table: whether the results are written after each run
    """

    def __init__(self, sweep: Sweep, results: list[Result], machine: Machine, table: bool):
        self.sweep, self.results, self.machine, self.table = sweep, results, machine, table
        self.places = {result.run.hash: place for place, result in enumerate(results)}
        self.waiting: list[Run] = []
        self.running: list[Job] = []

    def run(self, todo: list[int]) -> int:
        """Does the runs at these places of the results; returns the signal that stopped it or 0."""
        stop, progress = Stop(), Progress(self.results, todo, self.machine.jobs)
        try:
            self._find(todo, progress)
            while (self.waiting or self.running) and not stop:
                while self.waiting and len(self.running) < self.machine.jobs and not stop:
                    job, text = self.machine.start(self.waiting.pop(0))
                    self.running.append(job)
                    progress.event(text, self.running)
                self._take_ended(progress)
                progress.tick(self.running)
                time.sleep(self.machine.poll if self.running else 0)
        finally:
            rest = self.machine.leave(self.running)
            stop.restore()
            outcome = "stopped" if self.waiting or self.running else "done"
            outcome += f" by signal {stop.signal}" if stop else ""
            progress.event(outcome + rest, [])
            progress.close()
        return stop.signal

    def _find(self, todo: list[int], progress: Progress) -> None:
        """Tells what an earlier sweep has begun, and still is at work, from what is to begin."""
        for result in [self.results[place] for place in todo]:
            # What has failed is tried again, whatever became of its job.
            job = self.machine.find(result.run) if result.status == MISSING else None
            if job is None:
                self.waiting.append(result.run)
            else:
                self.running.append(job)
                progress.event(f"still at work: {result.run.folder}", self.running)

    def _take_ended(self, progress: Progress) -> None:
        for job in [job for job in self.running if job.has_ended()]:
            self.running.remove(job)
            result = read_result(job.run, self.sweep.metrics)
            if result.status == MISSING:
                result = Result(job.run, FAILED, "its folder is gone", job.seconds)
            self.results[self.places[job.run.hash]] = result
            progress.add(result)
            reason = f": {result.error}" if result.error else f" in {clock(result.seconds)}"
            progress.event(f"{result.status} {job.run.folder}{reason}", self.running)
            if self.table:
                write_results(self.sweep, self.results)
