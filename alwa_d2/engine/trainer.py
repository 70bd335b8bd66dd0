"""Detectron2's default trainer with loss weighting logged and evaluation by type of data set."""

import logging
import os

import torch
from detectron2.data import (
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.engine import SimpleTrainer, create_ddp_model, hooks
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter
from detectron2.utils.logger import setup_logger

from ..data.mapper import build_mapper
from ..data.preflight import nothing_to_train_on
from ..detectron2_private import TrainerOfParts, remove_hooks, writers_of
from ..errors import UserError
from ..modeling import reset_loss_state
from .amp import MixedPrecisionTrainer
from .checkpoint import Checkpointer
from .coco_evaluation import COCOEvaluator
from .data_check import check_before_run
from .defaults import scale_to_processes
from .hooks import EvaluationWriter, LossWeightLogger
from .optimizer import build_optimizer
from .rank_state import RankState
from .test_time_augmentation import augmented_results
from .voc_evaluation import VOCEvaluator

logger = logging.getLogger(__name__)

# Evaluators by the `evaluator_type` of a data set's metadata.
EVALUATORS = {
    "coco": lambda cfg, name: COCOEvaluator(
        name,
        output_dir=os.path.join(cfg.OUTPUT_DIR, "inference"),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    ),
    "pascal_voc": lambda cfg, name: VOCEvaluator(name),
}


class Trainer(TrainerOfParts):
    """`DefaultTrainer` for models with loss weighters, on VOC and COCO data, CPU and CUDA."""

    def __init__(self, cfg):
        self.check_evaluators(cfg)  # before training, not after it
        period = cfg.SOLVER.CHECKPOINT_PERIOD
        if period < 1:
            raise ValueError(f"SOLVER.CHECKPOINT_PERIOD: expected at least 1, got {period}")
        if not logging.getLogger("detectron2").isEnabledFor(logging.INFO):
            setup_logger()
            setup_logger(name="alwa_d2")
        check_before_run(cfg, training=True)
        processes = comm.get_world_size()
        cfg = scale_to_processes(cfg)
        if cfg.SOLVER.IMS_PER_BATCH % processes:
            raise UserError(
                f"SOLVER.IMS_PER_BATCH: expected a multiple of {processes}, the number of "
                f"processes, got {cfg.SOLVER.IMS_PER_BATCH}"
            )
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
        if self.cfg.TEST.AUG.ENABLED:
            augmented = hooks.EvalHook(
                0, lambda: augmented_results(type(self), self.cfg, self.model)
            )
            result.insert(len(result) - is_main, augmented)
        if is_main:
            # The printer has a line of its own for each evaluation.
            writers = writers_of(result[-1])
            files = [w for w in writers if not isinstance(w, CommonMetricPrinter)]
            result.append(EvaluationWriter(files, self.cfg.TEST.EVAL_PERIOD))
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
        if resume and not resumed:
            logger.warning(
                f"--resume: no checkpoint in {self.cfg.OUTPUT_DIR}, nothing to go on from; "
                "training begins at iteration 0"
            )
        if not resumed and reset_loss_state(model):
            logger.info(
                f"Training starts anew from {self.cfg.MODEL.WEIGHTS}: its loss weights, window and "
                "loss normaliser are not taken over (--resume does)."
            )

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """See Detectron2's; leaves the random state as it was, so that training does not depend on
        whether there was an evaluation."""
        check_before_run(cfg, training=False)
        device = next(model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return super().test(cfg, model, evaluators)

    @classmethod
    def build_train_loader(cls, cfg):
        """Detectron2's; UserError with counts and reasons where there is nothing to train on."""
        cls.check_train_sets(cfg)
        try:
            return build_detection_train_loader(cfg, mapper=build_mapper(cfg, is_train=True))
        except (AssertionError, ValueError) as error:  # the latter under python -O
            if (reason := nothing_to_train_on(cfg)) is not None:
                raise UserError(reason) from error
            raise

    @staticmethod
    def check_train_sets(cfg):
        """Refuses a training without data sets, at which Detectron2 fails without a word."""
        if not cfg.DATASETS.TRAIN:
            raise UserError(
                "DATASETS.TRAIN: expected at least one data set to train on, got (); name one, of "
                "DATASETS.REGISTER or one that Detectron2 knows (--eval-only needs none)"
            )

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        mapper = build_mapper(cfg, is_train=False)
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Detectron2's; see :func:`alwa_d2.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        build = EVALUATORS[cls._evaluator_type(dataset_name)]
        return build(cfg, dataset_name)

    @classmethod
    def check_evaluators(cls, cfg):
        """Refuses, by a ValueError, data sets of DATASETS.TEST that have no evaluator."""
        for name in cfg.DATASETS.TEST:
            cls._evaluator_type(name)

    @staticmethod
    def _evaluator_type(dataset_name):
        evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if evaluator_type not in EVALUATORS:
            raise ValueError(
                f"DATASETS.TEST: expected data sets with evaluator_type {' or '.join(EVALUATORS)}, "
                f"got '{dataset_name}' with {evaluator_type}"
            )
        return evaluator_type
