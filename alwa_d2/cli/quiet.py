"""Warnings of other packages that a user of the command can do nothing about."""

import os
import re
import warnings

# How the message begins (no comma: PYTHONWARNINGS has one between two filters), and its category.
NOISE = (
    ("pkg_resources is deprecated as an API", UserWarning),  # Detectron2's model zoo
    ("`torch.jit.script` is deprecated", FutureWarning),  # Detectron2's and fvcore's functions
    ("torch.meshgrid: in an upcoming release", UserWarning),  # Detectron2's anchors
)


def silence() -> None:
    """Leaves these warnings out in this process and in those that it starts.

    Filters of `python -W` and of PYTHONWARNINGS stay in force before these.
    """
    for message, category in NOISE:
        warnings.filterwarnings("ignore", re.escape(message), category, append=True)
    # The last of the variable's filters is the first that counts.
    given = [f for f in os.environ.get("PYTHONWARNINGS", "").split(",") if f]
    ours = [f"ignore:{message}:{category.__name__}" for message, category in NOISE]
    os.environ["PYTHONWARNINGS"] = ",".join([f for f in ours if f not in given] + given)
