"""How a config builds loss weighters."""

from typing import Any

from .._show import show
from ..config import check_added
from .base import LossWeighter
from .registry import LOSS_WEIGHTER_REGISTRY


def weighter_class(cfg: Any) -> type[LossWeighter]:
    """
    The class that `cfg.MODEL.LOSS_WEIGHTER.NAME` names.

    Raises:
        ValueError: an unknown name, or a config without alwa_d2's keys
    """
    check_added(cfg)
    name = cfg.MODEL.LOSS_WEIGHTER.NAME
    if not isinstance(name, str) or name not in LOSS_WEIGHTER_REGISTRY:
        names = sorted(key for key, _ in LOSS_WEIGHTER_REGISTRY)
        raise ValueError(
            f"MODEL.LOSS_WEIGHTER.NAME: expected one of {', '.join(names)}, got {show(name)}"
        )
    return LOSS_WEIGHTER_REGISTRY.get(name)


def build_loss_weighter(cfg: Any, *keys: str) -> LossWeighter:
    """
    The weighter that `cfg.MODEL.LOSS_WEIGHTER.NAME` names, of these losses.

    Args:
        cfg: a Detectron2 config with alwa_d2's keys
        keys: names of two or more losses

    Raises:
        ValueError: an unknown name, or losses or a value that the weighter refuses
    """
    return weighter_class(cfg).build(cfg, keys)
