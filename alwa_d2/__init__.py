"""Loss weighting and fused losses for Detectron2.

Importing the package registers its models and data sets with Detectron2 where that is installed;
`alwa_d2.layers` and `alwa_d2.weighting` work without it.
"""

import importlib.util

from .config import add_alwa_config

__version__ = "0.1.0"
__all__ = ["add_alwa_config"]

if importlib.util.find_spec("detectron2") is not None:
    from . import data, modeling  # noqa: F401
