"""What a user of the command can do nothing about: others' warnings, output that nobody reads."""

import logging
import os
import re
import sys
import warnings

# How the message begins, and its category. No comma and no colon, which have a meaning in
# PYTHONWARNINGS.
NOISE = (
    ("pkg_resources is deprecated as an API", UserWarning),  # Detectron2's model zoo
    ("`torch.jit.script` is deprecated", FutureWarning),  # Detectron2's and fvcore's functions
    ("torch.meshgrid", UserWarning),  # Detectron2's anchors
    ("resource_tracker", UserWarning),  # of processes that a signal has ended; nothing is leaked
    ("`broadcast_buffers` is deprecated", FutureWarning),  # Detectron2's DistributedDataParallel
)
# Loggers of which only errors are let through.
CHATTER = (
    "torch.utils.cpp_extension",  # no GPU; imported by Detectron2's account of the environment
    "torch.multiprocessing.spawn",  # that the other processes are ended where one has failed
)


def silence() -> None:
    """Leaves all of these out in this process and in those that it starts.

    Filters of `python -W` and of PYTHONWARNINGS stay in force before these.
    """
    for message, category in NOISE:
        warnings.filterwarnings("ignore", re.escape(message), category, append=True)
    for name in CHATTER:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.Handler.handleError = _handle_error
    # The last of the variable's filters is the first that counts.
    given = [f for f in os.environ.get("PYTHONWARNINGS", "").split(",") if f]
    ours = [f"ignore:{message}:{category.__name__}" for message, category in NOISE]
    os.environ["PYTHONWARNINGS"] = ",".join([f for f in ours if f not in given] + given)


_log_error = logging.Handler.handleError


def _handle_error(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Python's, which prints a traceback for each line; but where what reads the log has gone, as
    `head` does, a training goes on without a word: its folder has the log, too."""
    if isinstance(sys.exc_info()[1], BrokenPipeError):
        leave_output()
    else:
        _log_error(handler, record)


def leave_output() -> None:
    """What is written from now on to an output that nobody reads any more goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
