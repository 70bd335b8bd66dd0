"""Values of Detectron2's settings, looked at before its own code stumbles over them."""

import difflib
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from PIL import ImageMode

from ..errors import UserError
from .optimizer import OPTIMIZERS

_NORMS = (
    *("", "BN", "SyncBN", "FrozenBN", "GN", "LN"),
    *("nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"),  # Detectron2's, for debugging
)
# Key -> the values that Detectron2 knows.
_CHOICES = {
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "none"),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "DATALOADER.SAMPLER_TRAIN": (
        *("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"),
        *("WeightedTrainingSampler", "WeightedCategoryTrainingSampler"),
    ),
    "SOLVER.LR_SCHEDULER_NAME": (
        *("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    ),
    "SOLVER.OPTIMIZER": tuple(OPTIMIZERS),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.NORM": _NORMS,
    "MODEL.FPN.NORM": _NORMS,
}
# Key -> the lowest value with a meaning.
_LEAST = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "INPUT.MIN_SIZE_TEST": 0,  # 0 leaves images as they are
}
_REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
}
_NO_PROPOSALS = "PrecomputedProposals"  # stands for none, and is in no registry


def check_settings(cfg: CfgNode) -> None:
    """
    Refuses values that Detectron2 would answer with a bare assertion or a KeyError.

    Raises:
        UserError: names the key, what was expected and what came
    """
    for key, registry in _REGISTRIES.items():
        _check_registered(cfg, key, registry)
    for key, known in _CHOICES.items():
        if (value := _value(cfg, key)) not in known:
            raise _refusal(key, f"one of {', '.join(map(repr, known))}", value)
    for key, least in _LEAST.items():
        if (value := _value(cfg, key)) < least:
            raise _refusal(key, f"at least {least}", value)
    if not cfg.INPUT.MIN_SIZE_TRAIN:
        raise _refusal("INPUT.MIN_SIZE_TRAIN", "one size or more", cfg.INPUT.MIN_SIZE_TRAIN)
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference and batch % reference:
        expected = f"a number that divides SOLVER.IMS_PER_BATCH {batch}"
        raise _refusal("SOLVER.REFERENCE_WORLD_SIZE", expected, reference)
    if not cfg.OUTPUT_DIR:
        raise _refusal("OUTPUT_DIR", "a folder", cfg.OUTPUT_DIR)
    sets, files = cfg.DATASETS.TRAIN, cfg.DATASETS.PROPOSAL_FILES_TRAIN
    if cfg.MODEL.LOAD_PROPOSALS and len(sets) != len(files):
        expected = f"a file for each of DATASETS.TRAIN {sets} (MODEL.LOAD_PROPOSALS is True)"
        raise _refusal("DATASETS.PROPOSAL_FILES_TRAIN", expected, files)
    for part in ("RETINANET", "RPN"):
        _check_matching(cfg, part)
    _check_channels(cfg)


def _value(cfg: CfgNode, key: str) -> Any:
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _refusal(key: str, expected: str, value: Any) -> UserError:
    return UserError(f"{key}: expected {expected}, got {value!r}")


def _check_registered(cfg: CfgNode, key: str, registry) -> None:
    name = _value(cfg, key)
    if name in registry or name == _NO_PROPOSALS:
        return
    near = difflib.get_close_matches(str(name), [known for known, _ in registry], n=3)
    raise _refusal(
        key, f"a name of Detectron2's registry (nearest: {', '.join(near) or 'none'})", name
    )


def _check_matching(cfg: CfgNode, part: str) -> None:
    """IoU thresholds part the anchors, and each part has a label."""
    thresholds, labels = cfg.MODEL[part].IOU_THRESHOLDS, cfg.MODEL[part].IOU_LABELS
    if len(labels) != len(thresholds) + 1:
        raise _refusal(
            f"MODEL.{part}.IOU_LABELS", f"one more than the IOU_THRESHOLDS {thresholds}", labels
        )


def _check_channels(cfg: CfgNode) -> None:
    """Means and deviations of as many channels as images are read with."""
    form = cfg.INPUT.FORMAT
    channels = _channels(form)
    for key, numbers in (("PIXEL_MEAN", (channels,)), ("PIXEL_STD", (channels, 1))):
        value = list(cfg.MODEL[key])
        if len(value) not in numbers:
            expected = f"a number for each of the {channels} channels of INPUT.FORMAT {form}"
            raise _refusal(f"MODEL.{key}", expected, value)


def _channels(form: str) -> int:
    if form in ("BGR", "YUV-BT.601"):  # Detectron2's names, the others are Pillow's
        return 3
    try:
        return len(ImageMode.getmode(form).bands)
    except (KeyError, TypeError) as error:
        expected = "BGR, RGB, YUV-BT.601, L or another mode of Pillow's"
        raise _refusal("INPUT.FORMAT", expected, form) from error
