"""Loss weighting and fused losses for Detectron2.

Importing the package registers its models and data sets with Detectron2 where that is installed;
`alwa_d2.layers` and `alwa_d2.weighting` work without it. Parts are imported when they are asked
for: `import alwa_d2` is enough for `alwa_d2.layers`.
"""

import importlib
import importlib.util
import pkgutil
import sys
import warnings
from typing import TYPE_CHECKING

from .config import add_alwa_config
from .errors import explain

__version__ = "0.1.0"
__all__ = ["add_alwa_config"]

_PARTS = {part.name for part in pkgutil.iter_modules(__path__) if not part.name.startswith("_")}


if TYPE_CHECKING:  # what __getattr__ gives
    from . import analysis as analysis
    from . import built as built
    from . import cli as cli
    from . import data as data
    from . import engine as engine
    from . import environment as environment
    from . import errors as errors
    from . import known_problems as known_problems
    from . import layers as layers
    from . import model_zoo as model_zoo
    from . import modeling as modeling
    from . import sweep as sweep
    from . import weighting as weighting
else:

    def __getattr__(name: str):
        if name not in _PARTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})


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


def _register() -> None:
    """With a broken Detectron2 the parts that do without it work all the same."""
    try:
        from . import data, modeling  # noqa: F401
    except Exception as error:  # of any type: what is broken there is not known
        words = "alwa_d2's models and data sets could not be registered with Detectron2"
        words = f"{words}: {explain(error)} (`alwa-d2 env` says what to do)"
        warnings.warn(words, RuntimeWarning, stacklevel=3)


if not _in_command() and importlib.util.find_spec("detectron2") is not None:
    _register()
