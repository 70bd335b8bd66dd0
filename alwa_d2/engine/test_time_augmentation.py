"""Evaluation with test-time augmentation, `TEST.AUG`, as Detectron2's train_net.py has it."""

import os
from collections import OrderedDict

from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNNWithTTA
from detectron2.modeling.meta_arch import GeneralizedRCNN

SUFFIX = "_TTA"  # Detectron2's, of the results' names


def check_augmentation(cfg) -> None:
    """Raises a ValueError where `TEST.AUG.ENABLED` asks for what Detectron2 cannot do."""
    if not cfg.TEST.AUG.ENABLED:
        return
    name = cfg.MODEL.META_ARCHITECTURE
    is_rcnn = name in META_ARCH_REGISTRY and issubclass(
        META_ARCH_REGISTRY.get(name), GeneralizedRCNN
    )
    for possible, got in (
        (is_rcnn, f"MODEL.META_ARCHITECTURE {name}"),
        (not cfg.MODEL.KEYPOINT_ON, "MODEL.KEYPOINT_ON True"),
        (not cfg.MODEL.LOAD_PROPOSALS, "MODEL.LOAD_PROPOSALS True"),
    ):
        if not possible:
            raise ValueError(
                "TEST.AUG.ENABLED: expected an R-CNN without keypoints and precomputed proposals, "
                f"the only models that Detectron2 augments tests of, got {got}"
            )


def augmented_results(trainer, cfg, model):
    """
    Results of the augmented test, named with "_TTA" at their end; nothing where it is not enabled.

    Args:
        trainer: class with the classmethods `build_evaluator` and `test`
        cfg: the run's config
        model: a :class:`GeneralizedRCNN`, or the `DistributedDataParallel` around it
    """
    if not cfg.TEST.AUG.ENABLED:
        return OrderedDict()
    check_augmentation(cfg)
    own = cfg.clone()
    own.defrost()
    own.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, f"inference{SUFFIX}")
    evaluators = [trainer.build_evaluator(own, name) for name in cfg.DATASETS.TEST]
    results = trainer.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
    # Only the main process has results.
    return OrderedDict((f"{name}{SUFFIX}", value) for name, value in (results or {}).items())
