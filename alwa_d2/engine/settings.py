"""Values of Detectron2's settings, looked at before its own code stumbles over them."""

import difflib
import math
from typing import Any

from detectron2.config import CfgNode
from PIL import ImageMode

from ..config import get_key
from ..errors import UserError
from .setting_values import (
    CHOICES,
    GROUPS,
    LEAST,
    NAMES,
    NONE,
    POSITIVE,
    PROBABILITIES,
    REGISTRIES,
    SHARES,
)


def check_settings(cfg: CfgNode) -> None:
    """
    Refuses values that Detectron2 would answer with a bare assertion or a KeyError.

    Raises:
        UserError: names the key, what was expected and what came
    """
    for key, registry in REGISTRIES.items():
        _check_registered(cfg, key, registry)
    for key, known in CHOICES.items():
        if (value := get_key(cfg, key)) not in known:
            raise _refusal(key, f"one of {', '.join(map(repr, known))}", value)
    for key, least in LEAST.items():
        if (value := get_key(cfg, key)) < least:
            raise _refusal(key, f"at least {least}", value)
    _check_ranges(cfg)
    _check_sizes(cfg)
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
    for part in ("RETINANET", "RPN", "ROI_HEADS"):
        _check_matching(cfg, part)
    _check_channels(cfg)
    _check_maps(cfg)


def _refusal(key: str, expected: str, value: Any) -> UserError:
    return UserError(f"{key}: expected {expected}, got {value!r}")


def _are_numbers(values: Any, above: float = -math.inf) -> bool:
    """Whether a list or tuple holds numbers above a bound, and nothing else."""
    numbers = isinstance(values, list | tuple) and all(type(v) in (int, float) for v in values)
    return numbers and all(value > above for value in values)


def _check_ranges(cfg: CfgNode) -> None:
    for key in SHARES:
        if not 0 <= (value := get_key(cfg, key)) <= 1:
            raise _refusal(key, "0 to 1", value)
    for key in PROBABILITIES:
        if not 0 < (value := get_key(cfg, key)) < 1:
            raise _refusal(key, "a number between 0 and 1", value)
    in_fpn = ("MODEL.FPN.IN_FEATURES",) if "fpn" in cfg.MODEL.BACKBONE.NAME else ()
    for key in (*NAMES, *in_fpn):
        if not (value := get_key(cfg, key)):
            raise _refusal(key, "one feature map or more", value)
    for key in POSITIVE:
        value = get_key(cfg, key)
        groups = value if value and isinstance(value[0], list | tuple) else [value]
        if not all(group and _are_numbers(group, above=0) for group in groups):
            raise _refusal(key, "for each feature map one number above 0 or more", value)
    for part in ("RETINANET", "RPN", "ROI_BOX_HEAD"):
        value = cfg.MODEL[part].BBOX_REG_WEIGHTS
        if len(value) not in (4, 5) or not _are_numbers(value, above=0):
            expected = "four numbers above 0 (five for rotated boxes)"
            raise _refusal(f"MODEL.{part}.BBOX_REG_WEIGHTS", expected, value)
    if not all(_are_numbers([v]) and (v == -1 or v > 0) for v in cfg.MODEL.RPN.CONV_DIMS):
        expected = "channels of each layer, -1 for as many as come in"
        raise _refusal("MODEL.RPN.CONV_DIMS", expected, cfg.MODEL.RPN.CONV_DIMS)
    head = cfg.MODEL.ROI_BOX_HEAD
    if head.NAME == "FastRCNNConvFCHead" and head.NUM_FC + head.NUM_CONV == 0:
        raise _refusal("MODEL.ROI_BOX_HEAD.NUM_FC", "at least 1, where NUM_CONV is 0", head.NUM_FC)
    steps = cfg.SOLVER.STEPS
    if not _are_numbers(steps) or sorted(steps) != list(steps):
        raise _refusal("SOLVER.STEPS", "iterations in their order", steps)


def _check_sizes(cfg: CfgNode) -> None:
    """Sizes that images are resized to and cropped to."""
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    sizes = sizes if isinstance(sizes, list | tuple) else (sizes,)  # Detectron2 takes a number, too
    if not sizes or not _are_numbers(sizes, above=-1):
        raise _refusal("INPUT.MIN_SIZE_TRAIN", "one size or more", cfg.INPUT.MIN_SIZE_TRAIN)
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range" and not (
        len(sizes) == 2 and sizes[0] <= sizes[1]
    ):
        expected = "the lowest and the highest size (MIN_SIZE_TRAIN_SAMPLING is range)"
        raise _refusal("INPUT.MIN_SIZE_TRAIN", expected, sizes)
    size, kind = cfg.INPUT.CROP.SIZE, cfg.INPUT.CROP.TYPE
    fits = len(size) == 2 and _are_numbers(size, above=0)
    if kind.startswith("relative"):
        fits, expected = fits and max(size) <= 1, "two shares of the image, above 0 and up to 1"
    else:
        fits = fits and all(side == int(side) for side in size)
        expected = "two whole numbers of pixels"
        if kind == "absolute_range":
            fits, expected = fits and size[0] <= size[1], f"{expected}, the lower one first"
    if cfg.INPUT.CROP.ENABLED and not fits:
        raise _refusal("INPUT.CROP.SIZE", f"{expected} (INPUT.CROP.TYPE {kind})", size)


def _check_registered(cfg: CfgNode, key: str, registry) -> None:
    name = get_key(cfg, key)
    if name in registry or name in NONE:
        return
    near = difflib.get_close_matches(str(name), [known for known, _ in registry], n=3)
    raise _refusal(
        key, f"a name of Detectron2's registry (nearest: {', '.join(near) or 'none'})", name
    )


def _check_matching(cfg: CfgNode, part: str) -> None:
    """IoU thresholds part the anchors, and each part has a label."""
    thresholds, labels = cfg.MODEL[part].IOU_THRESHOLDS, cfg.MODEL[part].IOU_LABELS
    if (
        not thresholds
        or not _are_numbers(thresholds, above=0)
        or sorted(thresholds) != list(thresholds)
    ):
        raise _refusal(
            f"MODEL.{part}.IOU_THRESHOLDS", "numbers above 0 that do not fall", thresholds
        )
    if not set(labels) <= {-1, 0, 1}:
        raise _refusal(f"MODEL.{part}.IOU_LABELS", "labels of -1, 0 and 1", labels)
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
        if len(value) not in numbers or not _are_numbers(value):
            expected = f"a number for each of the {channels} channels of INPUT.FORMAT {form}"
            raise _refusal(f"MODEL.{key}", expected, value)
    if not _are_numbers(cfg.MODEL.PIXEL_STD, above=0):
        raise _refusal("MODEL.PIXEL_STD", "numbers above 0", cfg.MODEL.PIXEL_STD)


def _check_maps(cfg: CfgNode) -> None:
    """Anchors for each feature map; channels that GroupNorm can part into its groups."""
    name = cfg.MODEL.META_ARCHITECTURE
    part = "RETINANET" if "RetinaNet" in name else "RPN" if "RCNN" in name else None
    maps = cfg.MODEL[part].IN_FEATURES if part else ()
    for key in POSITIVE if part else ():
        if isinstance((value := get_key(cfg, key))[0], list | tuple) and len(value) not in (
            1,
            len(maps),
        ):
            expected = f"one list for all or for each of MODEL.{part}.IN_FEATURES {maps}"
            raise _refusal(key, expected, value)
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    if cfg.MODEL.FPN.NORM == "GN" and "fpn" in cfg.MODEL.BACKBONE.NAME and channels % GROUPS:
        expected = f"a multiple of {GROUPS}, the groups of MODEL.FPN.NORM GN"
        raise _refusal("MODEL.FPN.OUT_CHANNELS", expected, channels)


def _channels(form: str) -> int:
    if form in ("BGR", "YUV-BT.601"):  # Detectron2's names, the others are Pillow's
        return 3
    try:
        return len(ImageMode.getmode(form).bands)
    except (KeyError, TypeError) as error:
        expected = "BGR, RGB, YUV-BT.601, L or another mode of Pillow's"
        raise _refusal("INPUT.FORMAT", expected, form) from error
