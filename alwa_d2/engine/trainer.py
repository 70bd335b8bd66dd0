"""Detectron2's default trainer with loss weighting logged and evaluation by type of data set."""

import logging
import os

from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import COCOEvaluator

from .hooks import LossWeightLogger
from .voc_evaluation import VOCEvaluator

logger = logging.getLogger(__name__)

# Evaluators by the `evaluator_type` of a data set's metadata.
EVALUATORS = {
    "coco": lambda name, folder: COCOEvaluator(name, output_dir=folder),
    "pascal_voc": lambda name, folder: VOCEvaluator(name),
}
WRITE_PERIOD = 20  # iterations between two lines of the log, Detectron2's own


class Trainer(DefaultTrainer):
    """`DefaultTrainer` for models with a loss weighter, on VOC and COCO data."""

    def build_hooks(self):
        result = super().build_hooks()
        # Writers are there on the main process alone, the last hook.
        if result and isinstance(result[-1], hooks.PeriodicWriter):
            result.insert(-1, LossWeightLogger(self.model, WRITE_PERIOD))
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
        evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if evaluator_type not in EVALUATORS:
            raise ValueError(
                f"DATASETS.TEST: expected data sets with evaluator_type {' or '.join(EVALUATORS)}, "
                f"got '{dataset_name}' with {evaluator_type}"
            )
        return EVALUATORS[evaluator_type](dataset_name, os.path.join(cfg.OUTPUT_DIR, "inference"))
