"""Loss weighting and fused losses for Detectron2.

Importing the package registers its models and data sets with Detectron2 where that is installed;
`alwa_d2.layers` and `alwa_d2.weighting` work without it.
"""

import importlib.util
import sys

from .config import add_alwa_config

__version__ = "0.1.0"
__all__ = ["add_alwa_config"]


def _in_command() -> bool:
    """Whether this process is the command `alwa-d2`, or `python -m alwa_d2`.

    The command registers later, when it comes to `alwa_d2.engine`: so its help is there at once,
    `alwa-d2 env` works with a broken Detectron2, and warnings can be silenced before they come.
    """
    if "alwa_d2_command" in sys.modules:
        return True
    # While Python looks for the module of its option -m, that option is argv[0].
    words = sys.orig_argv
    return sys.argv[:1] == ["-m"] and "-m" in words and words[words.index("-m") + 1] == __name__


if not _in_command() and importlib.util.find_spec("detectron2") is not None:
    from . import data, modeling  # noqa: F401
