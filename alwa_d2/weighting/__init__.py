"""Weights of a detector's losses while it trains. Plain PyTorch; no Detectron2 needed."""

from .alwa import ALWA
from .base import LOSS_WEIGHTER_REGISTRY, LossWeighter, build_loss_weighter
from .fixed import Fixed

__all__ = ["ALWA", "Fixed", "LOSS_WEIGHTER_REGISTRY", "LossWeighter", "build_loss_weighter"]
