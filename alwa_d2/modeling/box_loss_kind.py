"""Which box loss a part of the detector has, and which box transform: what the kernels take."""

import math
from typing import Any

from detectron2.modeling.box_regression import Box2BoxTransform

from ..layers import BOX_LOSS_KINDS

SCALE_CLAMP = math.log(1000 / 16)  # the kernels', and Detectron2's default


def check_box_loss_kind(section: str, kind: str) -> None:
    """Raises a ValueError where a config section's box loss is none that there is."""
    if kind not in BOX_LOSS_KINDS:
        raise ValueError(
            f"box_reg_loss_type (MODEL.{section}.BBOX_REG_LOSS_TYPE): expected one of "
            f"{', '.join(BOX_LOSS_KINDS)}, got '{kind}'"
        )


def takes_transform(transform: Any) -> bool:
    """Whether the kernels decode boxes as this transform does."""
    return type(transform) is Box2BoxTransform and math.isclose(transform.scale_clamp, SCALE_CLAMP)


def check_transform(transform: Any) -> None:
    """Raises a ValueError where the kernels do not decode boxes as this transform does."""
    if not takes_transform(transform):
        clamp = getattr(transform, "scale_clamp", None)
        raise ValueError(
            "box2box_transform: expected Detectron2's Box2BoxTransform with scale_clamp "
            f"log(1000 / 16) = {SCALE_CLAMP:.4f}, got a {type(transform).__name__} with {clamp}"
        )
