"""Training: configuration, trainer, hooks and evaluation."""

from .coco_evaluation import COCOEvaluator
from .defaults import setup, setup_cfg
from .hooks import LossWeightLogger
from .trainer import Trainer
from .voc_evaluation import VOCEvaluator

__all__ = ["COCOEvaluator", "LossWeightLogger", "Trainer", "VOCEvaluator", "setup", "setup_cfg"]
