"""The line at a training's start: what weighs which losses how, and what is set without effect."""

import logging

from detectron2.config import CfgNode
from torch import nn

from ..config import get_key, is_added, own_defaults
from ..modeling import groups
from ..weighting import LOSS_WEIGHTER_REGISTRY, Fixed, LossWeighter, weighters_of

logger = logging.getLogger(__name__)

# What every weighted model reads, and what one class of models reads, by the key's beginning.
ALWAYS_READ = ("MODEL.LOSS_WEIGHTER.NAME", groups.KEY, groups.OLD_KEY)
READERS = {
    "MODEL.RETINANET.SYNC_NORMALIZER": "AlwaRetinaNet",
    "MODEL.FCOS": "AlwaFCOS",
}


def log_weighting(cfg, model: nn.Module) -> None:
    """
    Logs the line: as a warning if something is set that has no effect.

    Args:
        cfg: the run's config; anything else, or one without alwa_d2's keys: then only what the
            model has is said
        model: not the `DistributedDataParallel` around it
    """
    line = describe(model)
    has_keys = isinstance(cfg, CfgNode) and is_added(cfg)
    idle = settings_without_effect(cfg, model) if has_keys else []
    if idle:
        logger.warning(f"{line} Set, but without effect: {'; '.join(idle)}.")
    else:
        logger.info(line)


def describe(model: nn.Module) -> str:
    """What weighs which of its losses how, in a sentence."""
    said = []
    for weighter in weighters_of(model):
        settings = weighter.settings()
        by = type(weighter).__name__ + (f" ({settings})" if settings else "")
        said.append(f"{', '.join(weighter.keys)} by {by}")
    if said:
        return f"Loss weights: {'; '.join(said)}; any others 1."
    return (
        f"Loss weights: {type(model).__name__} has no loss weighter, all losses count as they are."
    )


def settings_without_effect(cfg, model: nn.Module) -> list[str]:
    """Keys of alwa_d2 that differ from their defaults and do nothing in this run, and why."""
    idle = []
    for key, default in own_defaults(cfg).items():
        reason = "" if get_key(cfg, key) == default else _why_idle(cfg, key, model)
        if reason:
            idle.append(f"{key} ({reason})")
    for weighter in weighters_of(model):
        idle += [text for text in weighter.without_effect(cfg.SOLVER.MAX_ITER) if text not in idle]
    return idle


def _why_idle(cfg, key: str, model: nn.Module) -> str:
    """Why a key does nothing, or nothing where it may do something."""
    for start, reader in READERS.items():
        if key.startswith(start):
            classes = [kind.__name__ for kind in type(model).__mro__]
            return "" if reader in classes else f"{classes[0]} does not read it"
    if key == "SOLVER.AMP.PRECISION":
        return "" if cfg.SOLVER.AMP.ENABLED else "SOLVER.AMP.ENABLED is False"
    sections = ("LOSS_WEIGHTER", *(name.upper() for name, _ in LOSS_WEIGHTER_REGISTRY))
    if key.split(".")[0] != "MODEL" or key.split(".")[1] not in sections:
        return ""
    weighters = weighters_of(model)
    if not weighters:
        return f"{type(model).__name__} has no loss weighter"
    if key == groups.OLD_KEY and all(map(_is_1, weighters)):
        return "weights of 1 need no pairs"
    if key in ALWAYS_READ or any(w.config_keys is None or key in w.config_keys for w in weighters):
        return ""
    names = sorted({type(weighter).__name__ for weighter in weighters})
    takers = sorted(
        name for name, kind in LOSS_WEIGHTER_REGISTRY if key in (kind.config_keys or ())
    )
    only = f", only {', '.join(takers)}" if takers else ""
    return f"{' and '.join(names)} does not take it{only}"


def _is_1(weighter: LossWeighter) -> bool:
    return isinstance(weighter, Fixed) and all(weight == 1 for weight in weighter.weights.values())
