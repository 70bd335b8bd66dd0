"""Runs as processes of this machine: how they begin, and how they end."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .record import write_record
from .sweep import Run, Sweep

TRAIN = [sys.executable, "-m", "alwa_d2", "train"]  # tests put a stub here
OUTPUT = "output.txt"  # what a run printed, in its folder
ERROR_LINES = 20  # of it that are kept of a failed run: a traceback's end, and what it was about
PATIENCE = 10  # seconds that a run has to end: an iteration, and the data loaders' workers
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


@dataclass
class Training:
    """A run at work in a process of its own."""

    run: Run
    process: subprocess.Popen
    begun: float  # time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def has_ended(self) -> bool:
        """Whether it has; then how is written down, as the last thing in its folder."""
        status = self.process.poll()
        if status is not None:
            lines = last_lines(self.run) if status else []
            write_record(self.run, self.seconds, status, lines)
        return status is not None


def last_lines(run: Run) -> list[str]:
    """The end of what a run printed; nothing if it printed nothing."""
    with contextlib.suppress(FileNotFoundError):
        text = (run.folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
        return text.splitlines()[-ERROR_LINES:]
    return []


def cores() -> int:
    """Those that this process may use (taskset, Slurm)."""
    return len(os.sched_getaffinity(0))


def train_command(sweep: Sweep, run: Run) -> list[str]:
    settings = {**run.cell.settings, "SEED": str(run.seed), "OUTPUT_DIR": str(run.folder)}
    pairs = [text for pair in settings.items() for text in pair]
    return [*TRAIN, "--config-file", str(sweep.config), *pairs]


def _end_with_parent() -> None:
    """In a run's process: be killed when the sweep is, which then cannot end it itself."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def begin(run: Run, command: list[str], threads: int, locks: Sequence[int] = ()) -> Training:
    """
    Begins a run in its folder, which is there and holds nothing of an earlier attempt.

    Args:
        run: the run
        command: trains it
        threads: OMP_NUM_THREADS
        locks: file descriptors that the process keeps open, see :func:`lock.locked`
    """
    with open(run.folder / OUTPUT, "wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            pass_fds=locks,
            preexec_fn=_end_with_parent,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its runs
        )
    return Training(run, process, time.monotonic())


def end(running: Sequence[Training]) -> None:
    """Ends the runs with their own processes, such as data loaders' workers, and nothing else."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for job in running:
            if job.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(job.process.pid, number)
        deadline = time.monotonic() + PATIENCE
        for job in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(max(0.0, deadline - time.monotonic()))


class Local:
    """Trains runs on this machine, `jobs` at a time, which share its cores."""

    poll = 0.2  # seconds between two looks at the runs: a wait that nobody notices

    def __init__(self, sweep: Sweep, jobs: int, locks: Sequence[int]):
        self.sweep, self.jobs, self.locks = sweep, jobs, locks

    def find(self, run: Run) -> None:
        """A run of an earlier sweep that is still at work: none, they end with their sweep."""

    def start(self, run: Run) -> tuple[Training, str]:
        """Begins a run anew; and says so."""
        if run.folder.exists():
            shutil.rmtree(run.folder)
        run.folder.mkdir(parents=True)
        threads = max(1, cores() // self.jobs)
        training = begin(run, train_command(self.sweep, run), threads, self.locks)
        return training, f"started {run.folder}"

    def leave(self, running: Sequence[Training]) -> str:
        """When the sweep ends: ends the runs."""
        end(running)
        return ""
