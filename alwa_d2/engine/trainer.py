"""Detectron2's default trainer with loss weighting logged and evaluation by type of data set."""

import logging
import os

import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import scale_iterations
from ..detectron2_private import TrainerOfParts, remove_hooks
from .amp import MixedPrecisionTrainer
from .checkpoint import Checkpointer
from .coco_evaluation import COCOEvaluator
from .hooks import LossWeightLogger
from .optimizer import build_optimizer
from .rank_state import RankState
from .voc_evaluation import VOCEvaluator

logger = logging.getLogger(__name__)

# Evaluators by the `evaluator_type` of a data set's metadata.
EVALUATORS = {
    "coco": lambda name, folder: COCOEvaluator(name, output_dir=folder),
    "pascal_voc": lambda name, folder: VOCEvaluator(name),
}


class Trainer(TrainerOfParts):
    """`DefaultTrainer` for models with loss weighters, on VOC and COCO data, CPU and CUDA."""

    def __init__(self, cfg):
        for name in cfg.DATASETS.TEST:  # before training, not after it
            self._evaluator_type(name)
        period = cfg.SOLVER.CHECKPOINT_PERIOD
        if period < 1:
            raise ValueError(f"SOLVER.CHECKPOINT_PERIOD: expected at least 1, got {period}")
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
            setup_logger(name="alwa_d2")
        cfg = scale_iterations(self.auto_scale_workers(cfg, comm.get_world_size()), cfg)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)

        on_cpu = next(model.parameters()).device.type == "cpu"
        devices = {"device_ids": None} if on_cpu else {}
        model = create_ddp_model(model, broadcast_buffers=False, **devices)
        if cfg.SOLVER.AMP.ENABLED:
            precision = cfg.SOLVER.AMP.PRECISION
            loop = MixedPrecisionTrainer(model, data_loader, optimizer, precision)
        else:
            loop = SimpleTrainer(model, data_loader, optimizer)
        super().__init__(cfg, loop, model, Checkpointer)

    def build_hooks(self):
        """Detectron2's, with :class:`RankState` before the checkpointer and
        :class:`LossWeightLogger` before the writer, which the main process alone has."""
        result = [hook for hook in super().build_hooks() if hook is not None]
        kinds = [type(hook) for hook in result]
        is_main = hooks.PeriodicCheckpointer in kinds
        first = kinds.index(hooks.PeriodicCheckpointer if is_main else hooks.EvalHook)
        model = self.checkpointer.model
        result.insert(len(result) - is_main, LossWeightLogger(model))
        result.insert(first, RankState(model, self.cfg.SOLVER.CHECKPOINT_PERIOD))
        return result

    def after_train(self):
        if self.iter < self.max_iter:
            # Training has failed, here: the other processes do not come to an evaluation.
            remove_hooks(self, hooks.EvalHook)
        super().after_train()

    def resume_or_load(self, resume=True):
        """Also lets a training that does not resume start with a new weighter and normaliser."""
        super().resume_or_load(resume)
        model = self.checkpointer.model
        resumed = resume and self.checkpointer.has_checkpoint()
        if not resumed and hasattr(model, "reset_loss_state") and model.reset_loss_state():
            logger.info(
                f"Training starts anew from {self.cfg.MODEL.WEIGHTS}: its loss weights, window and "
                "loss normaliser are not taken over (--resume does)."
            )

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """See Detectron2's; leaves the random state as it was, so that training does not depend on
        whether there was an evaluation."""
        device = next(model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return super().test(cfg, model, evaluators)

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Detectron2's; see :func:`alwa_d2.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        build = EVALUATORS[cls._evaluator_type(dataset_name)]
        return build(dataset_name, os.path.join(cfg.OUTPUT_DIR, "inference"))

    @staticmethod
    def _evaluator_type(dataset_name):
        evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if evaluator_type not in EVALUATORS:
            raise ValueError(
                f"DATASETS.TEST: expected data sets with evaluator_type {' or '.join(EVALUATORS)}, "
                f"got '{dataset_name}' with {evaluator_type}"
            )
        return evaluator_type
