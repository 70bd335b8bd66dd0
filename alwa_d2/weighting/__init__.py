"""Weights of a detector's losses while it trains. Plain PyTorch; no Detectron2 needed."""

from .alwa import ALWA
from .base import LossWeighter, weighters_of
from .build import build_loss_weighter, weighter_class
from .cov import CoV
from .dwa import DWA
from .famo import FAMO
from .fixed import Fixed
from .following import Following, is_present, scale_to_sum
from .gradnorm import GradNorm
from .inverse import Inverse
from .registry import LOSS_WEIGHTER_REGISTRY
from .rlw import RLW
from .schedule import Schedule
from .self_balance import SelfBalance
from .state import LoadsStockCheckpoints, begins_anew
from .uncertainty import Uncertainty

__all__ = [
    "ALWA",
    "CoV",
    "DWA",
    "FAMO",
    "Fixed",
    "Following",
    "GradNorm",
    "Inverse",
    "LOSS_WEIGHTER_REGISTRY",
    "LoadsStockCheckpoints",
    "LossWeighter",
    "RLW",
    "Schedule",
    "SelfBalance",
    "Uncertainty",
    "begins_anew",
    "build_loss_weighter",
    "is_present",
    "scale_to_sum",
    "weighter_class",
    "weighters_of",
]
