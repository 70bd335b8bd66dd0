"""How far a sweep is: a bar where someone watches, a line for each event in a log file."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from .record import FINISHED, MISSING, Result

NAMES = 3  # of the runs at work that are named; of more the number is


class Bar(tqdm):
    monitor_interval = 0  # no thread of tqdm's: the sweep forks


class Progress:
    """
    Counts the runs of a sweep, and estimates the time left.

    Args:
        results: of all runs
        todo: places in `results` of those that are to be done
        jobs: how many are done at a time
    """

    def __init__(self, results: list[Result], todo: list[int], jobs: int):
        self.total, self.todo, self.jobs = len(results), len(todo), jobs
        kept = [result for place, result in enumerate(results) if place not in todo]
        self.done = sum(result.status == FINISHED for result in kept)
        self.failed = sum(result.status not in (FINISHED, MISSING) for result in kept)
        self.durations = [r.seconds for r in results if r.status == FINISHED and r.seconds]
        self.start = time.monotonic()
        self.bar = Bar(
            total=self.total, bar_format="|{bar:20}| {desc}", ascii=" =", dynamic_ncols=True,
            leave=False, disable=None,
        )  # fmt: skip

    def add(self, result: Result) -> None:
        """A run has ended."""
        self.todo -= 1
        self.done += result.status == FINISHED
        self.failed += result.status != FINISHED
        if result.seconds and result.status == FINISHED:
            self.durations.append(result.seconds)

    def left(self, running: Sequence) -> str:
        """The time left, if every run takes what those took that have finished."""
        if not self.durations:
            return "?"
        mean = sum(self.durations) / len(self.durations)
        seconds = self.todo * mean - sum(min(job.seconds, mean) for job in running)
        return clock(seconds / max(1, min(self.jobs, self.todo)))

    def line(self, running: Sequence) -> str:
        elapsed = clock(time.monotonic() - self.start)
        text = f"[{self.done}/{self.total}] {self.failed} failed, {elapsed} elapsed, "
        return text + f"{self.left(running)} left"

    def event(self, text: str, running: Sequence) -> None:
        """Something happened: a line that stays."""
        if self.bar.disable:
            print(f"{self.line(running)}; {text}", file=sys.stderr, flush=True)
        else:
            self.bar.write(text, file=sys.stderr)

    def tick(self, running: Sequence) -> None:
        """Draws the bar anew, if there is one."""
        names = ", ".join(job.run.name for job in running[:NAMES])
        more = f" and {len(running) - NAMES} more" if len(running) > NAMES else ""
        self.bar.n = self.done + self.failed
        self.bar.set_description_str(f"{self.line(running)}; now: {names}{more}")

    def close(self) -> None:
        self.bar.close()


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
