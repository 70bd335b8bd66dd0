"""Which box loss a part of the detector has: its BBOX_REG_LOSS_TYPE."""

from ..layers import BOX_LOSS_KINDS


def check_box_loss_kind(section: str, kind: str) -> None:
    """Raises a ValueError where a config section's box loss is none that there is."""
    if kind not in BOX_LOSS_KINDS:
        raise ValueError(
            f"box_reg_loss_type (MODEL.{section}.BBOX_REG_LOSS_TYPE): expected one of "
            f"{', '.join(BOX_LOSS_KINDS)}, got '{kind}'"
        )
