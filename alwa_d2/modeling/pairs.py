"""Which losses are balanced against each other: MODEL.ALWA.PAIRS."""

from collections.abc import Collection, Sequence

from .._show import show
from ..weighting import LossWeighter, build_loss_weighter

Pair = tuple[str, str]  # keys of a classification loss and of a box-regression loss


def build_loss_weighters(cfg, default: Sequence[Pair]) -> list[LossWeighter]:
    """
    One weighter for each pair of `cfg.MODEL.ALWA.PAIRS`, or of `default` where that is empty.

    Raises:
        ValueError: what is not a list of pairs of names, or a loss named twice
    """
    pairs = cfg.MODEL.ALWA.PAIRS or default
    if not isinstance(pairs, list | tuple) or not all(map(_is_pair, pairs)):
        raise ValueError(
            "MODEL.ALWA.PAIRS: expected a list of pairs [classification loss, box loss], "
            f"got {show(pairs)}"
        )
    keys = [key for pair in pairs for key in pair]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"MODEL.ALWA.PAIRS: expected each loss once, got '{key}' again")
    return [build_loss_weighter(cfg, *pair) for pair in pairs]


def check_pair(weighter: LossWeighter, losses: Collection[str]) -> None:
    """Raises a ValueError where the model does not have the weighter's two losses."""
    for key in (weighter.cls_key, weighter.reg_key):
        if key not in losses:
            raise ValueError(
                f"loss_weighter (MODEL.ALWA.PAIRS): ['{weighter.cls_key}', '{weighter.reg_key}'] "
                f"needs the loss '{key}'; this model has {', '.join(sorted(losses))}"
            )


def _is_pair(pair) -> bool:
    is_sequence = isinstance(pair, list | tuple) and len(pair) == 2
    return is_sequence and all(isinstance(key, str) and key.isidentifier() for key in pair)
