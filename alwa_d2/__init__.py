"""Loss weighting and fused losses for Detectron2.

Importing the package registers its models and data sets with Detectron2 where that is installed;
`alwa_d2.layers` and `alwa_d2.weighting` work without it. Parts are imported when they are asked
for: `import alwa_d2` is enough for `alwa_d2.layers`.
"""

import importlib
import importlib.util
import pkgutil

from .config import add_alwa_config

__version__ = "0.1.0"
__all__ = ["add_alwa_config"]

_PARTS = {part.name for part in pkgutil.iter_modules(__path__) if not part.name.startswith("_")}


def __getattr__(name: str):
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})


if importlib.util.find_spec("detectron2") is not None:
    from . import data, modeling  # noqa: F401
