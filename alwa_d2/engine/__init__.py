"""Training: configuration, processes, trainer, hooks, checkpoints and evaluation."""

from .. import data, modeling  # noqa: F401  (registered with Detectron2)
from .checkpoint import Checkpointer
from .coco_evaluation import COCOEvaluator
from .defaults import setup, setup_cfg
from .hooks import LossWeightLogger
from .launch import launch
from .optimizer import optimizer_overrides
from .rank_state import RankState
from .test_time_augmentation import augmented_results
from .train import train_model
from .trainer import Trainer
from .voc_evaluation import VOCEvaluator

__all__ = [
    "COCOEvaluator",
    "Checkpointer",
    "LossWeightLogger",
    "RankState",
    "Trainer",
    "VOCEvaluator",
    "augmented_results",
    "launch",
    "optimizer_overrides",
    "setup",
    "setup_cfg",
    "train_model",
]
