"""The runs of a sweep as processes: how they begin, and end."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .plan import Run, Sweep
from .table import Result, read_result, write_record

TRAIN_NET = [sys.executable, "-m", "alwa_d2", "train"]  # tests put a stub here
OUTPUT = "output.txt"  # what a run printed, in its folder
ERROR_LINES = 20  # of it that are kept of a failed run
PATIENCE = 10  # seconds that a run has to end, and that the lock of an ending sweep is waited for
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


@dataclass
class Job:
    """A run at work."""

    run: Run
    process: subprocess.Popen
    start: float  # time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


@contextlib.contextmanager
def locked(output: Path, run: str | None) -> Iterator[list[int]]:
    """Keeps a second sweep out of the folder, which would take runs at work for half-finished.

    With `run`, a hash, other single runs are let in, but not the same one. The runs hold the files
    open too, so that one which outlives its sweep is waited for.
    """
    kinds = {".lock": fcntl.LOCK_EX}
    if run is not None:
        kinds = {".lock": fcntl.LOCK_SH, f".lock.{run}": fcntl.LOCK_EX}
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = {stack.enter_context(open(output / name, "a")): kinds[name] for name in kinds}
        for file, kind in files.items():
            for attempt in range(PATIENCE + 1):
                try:
                    fcntl.flock(file, kind | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if attempt == PATIENCE:
                        what = "another sweep" if run is None else f"a sweep, or the run {run},"
                        raise UserError(f"{output}: {what} is at work here") from None
                    time.sleep(1)
        yield [file.fileno() for file in files]


def _end_with_sweep() -> None:
    """In a run's process: be killed when the sweep is, which then cannot end it itself."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(sweep: Sweep, run: Run, threads: int, locks: list[int]) -> Job:
    """Begins a run anew; what an earlier attempt left in its folder is removed."""
    if run.folder.exists():
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True)
    settings = {**run.cell.settings, "SEED": str(run.seed), "OUTPUT_DIR": str(run.folder)}
    pairs = [text for pair in settings.items() for text in pair]
    with open(run.folder / OUTPUT, "wb") as file:
        process = subprocess.Popen(
            [*TRAIN_NET, "--config-file", str(sweep.config), *pairs],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            pass_fds=locks,
            preexec_fn=_end_with_sweep,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its runs
        )
    return Job(run, process, time.monotonic())


def record(sweep: Sweep, job: Job) -> Result:
    """Writes down how a run ended, as the last thing in its folder."""
    status, lines = job.process.returncode, []
    if status:
        text = (job.run.folder / OUTPUT).read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()[-ERROR_LINES:]
    write_record(job.run, job.seconds, status, lines)
    return read_result(job.run, sweep.metrics)


def end(running: list[Job]) -> None:
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
