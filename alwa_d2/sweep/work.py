"""The runs of a sweep done one after the other or side by side, with a line of progress."""

import os
import shutil
import signal
import sys
import time

from .jobs import Job, end, record, start
from .plan import Sweep
from .table import FINISHED, MISSING, Result, write_results

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
