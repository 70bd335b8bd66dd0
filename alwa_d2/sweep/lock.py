"""One sweep at a time in a folder."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError

PATIENCE = 10  # seconds that the lock of an ending sweep is waited for: it gives its runs as long


@contextlib.contextmanager
def locked(output: Path, run: str | None) -> Iterator[list[int]]:
    """
    Keeps a second sweep out of the folder, which would take runs at work for half-finished.

    The runs hold the files open too, so that one which outlives its sweep is waited for.

    Args:
        output: the sweep's folder; made if it is not there
        run: a hash; then other single runs are let in, but not the same one. None for a sweep

    Yields:
        the file descriptors that hold the locks, for the runs' processes

    Raises:
        UserError: another sweep, or the same run, is at work
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
