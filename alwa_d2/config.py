"""The config keys that alwa_d2 adds to Detectron2's."""

import logging
from collections.abc import Collection, Iterator
from typing import Any

logger = logging.getLogger(__name__)

# Keys that are counted in iterations, for `scale_iterations`, with the smallest number it makes.
ITERATION_KEYS = {
    "MODEL.ALWA.INTERVAL": 3,  # what DETREND takes; 2 stays 2
    "MODEL.ALWA.FREEZE_AFTER": 0,
    "MODEL.LOSS_WEIGHTER.SCHEDULE": 0,
    "MODEL.LOSS_WEIGHTER.SELFBALANCE.PERIOD": 0,
    "MODEL.LOSS_WEIGHTER.DWA.WINDOW": 1,
    "MODEL.LOSS_WEIGHTER.GRADNORM.WINDOW": 1,
}
# Keys that runs already had when the first of their hashes were published, in docs/results.
HASHED_KEYS = (
    "MODEL.LOSS_WEIGHTER.NAME",
    "MODEL.LOSS_WEIGHTER.WEIGHTS",
    "MODEL.ALWA.VARIANT",
    "MODEL.ALWA.RULE",
    "MODEL.ALWA.INTERVAL",
    "MODEL.ALWA.MIN_WEIGHT",
    "MODEL.ALWA.FREEZE_AFTER",
    "MODEL.ALWA.PAIRS",
    "MODEL.RETINANET.SYNC_NORMALIZER",
    "SOLVER.AMP.PRECISION",
    "DATASETS.REGISTER",
)


def add_alwa_config(cfg: Any) -> None:
    """Adds alwa_d2's keys with their defaults to a Detectron2 config, in place.

    Detectron2's own `BBOX_REG_LOSS_TYPE` of `MODEL.RETINANET`, `MODEL.RPN` and
    `MODEL.ROI_BOX_HEAD` take "l1" and "iou" as well as "smooth_l1", "giou", "diou" and "ciou" where
    the model is `AlwaRetinaNet` or `AlwaGeneralizedRCNN`, with `AlwaRPN`.
    """
    _add_weighters(cfg)
    _add_alwa(cfg)
    _add_fcos(cfg)

    # Whether AlwaRetinaNet's loss normaliser averages the numbers of foreground anchors over all
    # processes (an all-reduce an iteration). Detectron2's, and the default, is each process's own.
    cfg.MODEL.RETINANET.SYNC_NORMALIZER = False

    # Whether a training may remove another one's files from OUTPUT_DIR; else it is refused.
    cfg.OVERWRITE = False

    # "SGD" (Detectron2's) or "AdamW" with PyTorch's betas (0.9, 0.999), which has no use for
    # SOLVER.MOMENTUM and NESTEROV, and wants a BASE_LR of its own.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # What SOLVER.AMP.ENABLED computes in: "float16" (Detectron2's) or "bfloat16".
    cfg.SOLVER.AMP.PRECISION = "float16"

    # Data sets to register, a list of dictionaries. VOC layout:
    #   {"name": "my_train", "format": "voc", "root": "data/mine", "split": "train"}
    # with "year" (2007 or 2012, the AP metric; default 2012); "images" and "annotations" (folders)
    # in place of "root"; without "split", all of it. COCO layout:
    #   {"name": "my_val", "format": "coco", "images": "data/val", "annotations": "data/val.json"}
    # Either takes "classes", a list of names in the order of their ids, and "part", such as
    # "first 80%" and "last 20%", with a "seed". See docs/data.md.
    cfg.DATASETS.REGISTER = []
    # Whether all data sets are looked at before training and evaluation, annotations and the
    # headers of images (half a minute for 118,000): what would fail later ends the run at once. The
    # command `alwa-d2 check-data` does the same and more. See docs/check_data.md.
    cfg.DATASETS.CHECK = True
    # Whether images that are cut off are used as far as they go; False ends the run at the first.
    cfg.INPUT.LOAD_TRUNCATED = False


def _add_weighters(cfg: Any) -> None:
    cfg.MODEL.LOSS_WEIGHTER = type(cfg)()
    # What weighs the losses: a name in LOSS_WEIGHTER_REGISTRY; docs/weighting.md has them all.
    # "Fixed" keeps WEIGHTS, "Schedule" follows SCHEDULE, "ALWA" adapts the classification weight
    # while training; the other methods' keys are below, each under its name.
    cfg.MODEL.LOSS_WEIGHTER.NAME = "Fixed"
    # Which losses it weighs, each group by a weighter of its own. None or "pairs": the model's
    # pairs of classification and box loss. "all": all losses of the model in one group, those of
    # masks and keypoints too. Or lists of names, such as [["loss_rpn_cls", "loss_rpn_loc"]].
    cfg.MODEL.LOSS_WEIGHTER.LOSSES = None
    # "Fixed" only: weights in the order of a group's losses, for a pair (classification loss, box
    # loss); or by name, [["loss_cls", 0.5], ["loss_mask", 2.0]], 1 for all others.
    cfg.MODEL.LOSS_WEIGHTER.WEIGHTS = [1.0, 1.0]
    # "Schedule" only: [[loss, [[iteration, weight], ...]], ...], a straight line from point to
    # point; 1 for losses that are not there.
    cfg.MODEL.LOSS_WEIGHTER.SCHEDULE = []
    # What the weights of a group sum to, for methods whose sum would say nothing but how large the
    # learning rate is: "Inverse", "DWA", "CoV", "RLW", "FAMO". 0: the number of the group's losses.
    cfg.MODEL.LOSS_WEIGHTER.SUM_TO = 0.0
    _add_methods(cfg.MODEL.LOSS_WEIGHTER)


def _add_alwa(cfg: Any) -> None:
    # "ALWA" only (arXiv 2103.09488; docs/method.md).
    cfg.MODEL.ALWA = type(cfg)()
    # The statistic S of a window of losses: "ALWA_1" mean + standard deviation, "ALWA_2" standard
    # deviation. Either serves one-stage and two-stage detectors.
    cfg.MODEL.ALWA.VARIANT = "ALWA_2"
    # What a window holds and when it changes the weight: "balance" or "authors" (as published).
    cfg.MODEL.ALWA.RULE = "balance"
    # Length C of a window, in iterations; at least 2.
    cfg.MODEL.ALWA.INTERVAL = 100
    # "balance" only: floor of the classification weight, in (0, 1].
    cfg.MODEL.ALWA.MIN_WEIGHT = 0.01
    # Iterations from which on the weights stay as they are; 0 for never.
    cfg.MODEL.ALWA.FREEZE_AFTER = 0
    # Whether the straight line through a window is taken out before S: a loss that falls evenly has
    # no spread then. An option of ours, as is the next.
    cfg.MODEL.ALWA.DETREND = False
    # How much of the old weight a new one keeps, in [0, 1): 0.9 moves a tenth of the way.
    cfg.MODEL.ALWA.SMOOTHING = 0.0
    # The old name of MODEL.LOSS_WEIGHTER.LOSSES, lists of two names; still understood.
    cfg.MODEL.ALWA.PAIRS = []


def _add_methods(keys: Any) -> None:
    """Of methods from the literature; rules and sources: docs/weighting.md."""
    CN = type(keys)
    # The form: exp(-s) L / 2 + s / 2 (Kendall 2018), or if True L / 2c^2 + ln(1 + c^2) (Liebel and
    # Koerner 2018). Learning rate of s or c, which follows the schedule of the model's; ours. The
    # weights at first; ours, so that training begins as 1:1 (s = 0 would be 1/2).
    keys.UNCERTAINTY = CN({"REVISED": False, "LR": 0.001, "START": 1.0})
    # The form: "reciprocal", "geometric" or "softmax". Shares of the total that the weighted losses
    # keep, relative to one another, [["loss_cls", 0.5]]; 1 for losses that are not there. T of the
    # softmax (arXiv 2408.07985, which searches for it), in 1 / loss.
    keys.INVERSE = CN({"FORM": "reciprocal", "TARGET": [], "TEMPERATURE": 1.0})
    # Iterations whose means give the box weight of the next ones, as an epoch does in aLRP (NeurIPS
    # 2020); 0: each iteration's own losses, as in Rank and Sort (ICCV 2021). Weighted box loss over
    # classification loss: 1 in the latter.
    keys.SELFBALANCE = CN({"PERIOD": 0, "RATIO": 1.0})
    # Iterations of a window, an epoch in the paper; ours is ALWA's. T = 2 as in Liu 2019, no unit.
    keys.DWA = CN({"WINDOW": 100, "TEMPERATURE": 2.0})
    # What an iteration's figures keep of their importance with each one after it, in [0, 1); 0: all
    # iterations count alike (Groenendijk 2021).
    keys.COV = CN({"DECAY": 0.0})
    # Learning rate and weight decay of the logits, which Adam moves: Liu 2023.
    keys.FAMO = CN({"LR": 0.025, "DECAY": 0.001})
    # alpha (Chen 2018: 1.5 where losses differ much), no unit. Step of the weights (0.025 there).
    # Iterations whose mean losses are the first losses; ours. A regular expression for names of the
    # parameters that the gradients are taken of: the FPN's output convolutions; ours.
    keys.GRADNORM = CN(
        {"ALPHA": 1.5, "LR": 0.025, "WINDOW": 20, "PARAMETERS": r"fpn_output\d+\.weight$"}
    )


def _add_fcos(cfg: Any) -> None:
    # "AlwaFCOS" only: keys that mean what they mean in MODEL.RETINANET, and Detectron2's values.
    cfg.MODEL.FCOS = type(cfg)()
    cfg.MODEL.FCOS.NUM_CLASSES = 80
    cfg.MODEL.FCOS.IN_FEATURES = ["p3", "p4", "p5", "p6", "p7"]
    cfg.MODEL.FCOS.NUM_CONVS = 4
    cfg.MODEL.FCOS.NORM = "GN"
    cfg.MODEL.FCOS.PRIOR_PROB = 0.01
    # Points at most so far from a box's centre are foreground, in strides of their level.
    cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS = 1.5
    cfg.MODEL.FCOS.FOCAL_LOSS_ALPHA = 0.25
    cfg.MODEL.FCOS.FOCAL_LOSS_GAMMA = 2.0
    # Of the square root of class score times centre-ness.
    cfg.MODEL.FCOS.SCORE_THRESH_TEST = 0.2
    cfg.MODEL.FCOS.TOPK_CANDIDATES_TEST = 1000
    cfg.MODEL.FCOS.NMS_THRESH_TEST = 0.6
    cfg.MODEL.FCOS.SYNC_NORMALIZER = False


def is_added(cfg: Any) -> bool:
    """Whether a config has alwa_d2's keys."""
    return "LOSS_WEIGHTER" in cfg.get("MODEL", {})


def check_added(cfg: Any) -> None:
    """Raises a ValueError where a config has not got alwa_d2's keys."""
    if not is_added(cfg):
        raise ValueError(
            "cfg: expected MODEL.LOSS_WEIGHTER and the other keys of alwa_d2, found none; call "
            "alwa_d2.add_alwa_config(cfg) after get_cfg()"
        )


def own_defaults(cfg: Any) -> dict[str, Any]:
    """Dotted key -> default of all keys of alwa_d2; `cfg` is asked for its class alone."""
    CN = type(cfg)
    sections = {"MODEL": CN({"RETINANET": CN()}), "SOLVER": CN({"AMP": CN()})}
    own = CN(sections | {"DATASETS": CN(), "INPUT": CN()})
    add_alwa_config(own)
    return dict(_flatten(own))


def get_key(cfg: Any, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def _set_key(cfg: Any, key: str, value: Any) -> None:
    parent, _, name = key.rpartition(".")
    get_key(cfg, parent)[name] = value


def dump_for_hash(cfg: Any) -> str:
    """
    A config as text, from which the hash of a run is made.

    It has no keys of alwa_d2 that came later than the first hashes and are at their defaults: what
    they say was so before. A new key leaves the hashes of old runs as they are.
    """
    cfg = cfg.clone()
    cfg.defrost()
    for key, default in own_defaults(cfg).items():
        if key not in HASHED_KEYS and get_key(cfg, key) == default:
            _remove(cfg, key)
    return cfg.dump()


def scale_iterations(scaled: Any, cfg: Any, taken: Collection[str] | None = None) -> Any:
    """
    A config whose weighters' iterations are scaled as Detectron2 scales `SOLVER.MAX_ITER`.

    Args:
        scaled: what `DefaultTrainer.auto_scale_workers(cfg, ...)` made of `cfg`
        cfg: the config before that
        taken: keys that the config's weighter takes, the defaults of others are left as they are;
            None: it may take all

    Returns:
        `scaled`, or a copy where the number of processes changed
    """
    before, after = (c.SOLVER.REFERENCE_WORLD_SIZE for c in (cfg, scaled))
    if before == after:
        return scaled
    defaults = own_defaults(cfg)
    result = scaled.clone()
    result.defrost()
    said = []
    for key in ("SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD"):  # 0 would be an error, or never
        if get_key(cfg, key) > 0 and get_key(scaled, key) == 0:
            _set_key(result, key, 1)
    for key, least in ITERATION_KEYS.items():
        old = get_key(cfg, key)
        if taken is not None and key not in taken and old == defaults[key]:
            continue  # another method's, which nobody has set
        new = _scale(old, before / after, least)
        if new != old:
            _set_key(result, key, new)
            said.append(f"{key} {new} for {old}")
    if said:
        logger.info(
            f"SOLVER.REFERENCE_WORLD_SIZE: on {after} processes in place of {before}: "
            f"{', '.join(said)}"
        )
    if scaled.is_frozen():
        result.freeze()
    return result


def _scale(value: Any, factor: float, least: int) -> Any:
    """A number of iterations, 0 for never, or the iterations in a SCHEDULE."""
    if isinstance(value, (list, tuple)):
        try:
            return [[loss, _scale_points(points, factor)] for loss, points in value]
        except (TypeError, ValueError):
            return value  # which is refused, by name, when the model is built
    return max(round(value * factor), min(least, value), 1) if value > 0 else value


def _scale_points(points: Any, factor: float) -> list[list[Any]]:
    """Points [iteration, weight]. A step, from one iteration to the next, stays one, and no two
    points fall together that did not."""
    scaled: list[list[Any]] = []
    before = None
    for i, weight in points:
        new = round(i * factor)
        if before is not None and before < i:
            next_one = scaled[-1][0] + 1
            new = next_one if i - before == 1 else max(new, next_one)
        scaled.append([new, weight])
        before = i
    return scaled


def _flatten(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in cfg.items():
        if isinstance(value, type(cfg)):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _remove(cfg: Any, key: str) -> None:
    """Takes a dotted key out, and the sections that are empty then."""
    parent, _, name = key.rpartition(".")
    section = get_key(cfg, parent) if parent else cfg
    del section[name]
    if parent and not section:
        _remove(cfg, parent)
