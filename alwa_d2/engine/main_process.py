"""What the main process does for all of them."""

from collections.abc import Callable

from detectron2.utils import comm


def on_main_process(check: Callable[[], None]) -> None:
    """Runs a check on the main process; what it raises is raised on all, which must call this."""
    error = None
    if comm.is_main_process():
        try:
            check()
        except Exception as found:
            error = found
    error = comm.all_gather(error)[0]
    if error is not None:
        raise error
