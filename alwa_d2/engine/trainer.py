"""Detectron2's default trainer with loss weighting logged and evaluation by type of data set."""

import logging
import os

from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, hooks

from .coco_evaluation import COCOEvaluator
from .hooks import LossWeightLogger
from .voc_evaluation import VOCEvaluator

logger = logging.getLogger(__name__)

# Evaluators by the `evaluator_type` of a data set's metadata.
EVALUATORS = {
    "coco": lambda name, folder: COCOEvaluator(name, output_dir=folder),
    "pascal_voc": lambda name, folder: VOCEvaluator(name),
}


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for models with a loss weighter, on VOC and COCO data."""

    def __init__(self, cfg):
        for name in cfg.DATASETS.TEST:  # before training, not after it
            self._evaluator_type(name)
        super().__init__(cfg)

    def build_hooks(self):
        result = super().build_hooks()
        for i, hook in enumerate(result):  # writers are there on the main process alone
            if isinstance(hook, hooks.PeriodicWriter):
                result.insert(i, LossWeightLogger(self.model, hook._period))
                break
        return result

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
