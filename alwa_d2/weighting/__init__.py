"""Weights of a detector's losses while it trains. Plain PyTorch; no Detectron2 needed."""

from .alwa import ALWA
from .base import LossWeighter, scale_to_sum
from .build import build_loss_weighter, weighter_class
from .fixed import Fixed
from .registry import LOSS_WEIGHTER_REGISTRY
from .schedule import Schedule
from .state import LoadsStockCheckpoints, begins_anew

__all__ = [
    "ALWA",
    "Fixed",
    "LOSS_WEIGHTER_REGISTRY",
    "LoadsStockCheckpoints",
    "LossWeighter",
    "Schedule",
    "begins_anew",
    "build_loss_weighter",
    "scale_to_sum",
    "weighter_class",
]
