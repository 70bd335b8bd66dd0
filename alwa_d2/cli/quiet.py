"""Warnings of other packages that a user of the command can do nothing about."""

import logging
import os
import re
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
    # The last of the variable's filters is the first that counts.
    given = [f for f in os.environ.get("PYTHONWARNINGS", "").split(",") if f]
    ours = [f"ignore:{message}:{category.__name__}" for message, category in NOISE]
    os.environ["PYTHONWARNINGS"] = ",".join([f for f in ours if f not in given] + given)
