"""Which losses are weighed together: MODEL.LOSS_WEIGHTER.LOSSES."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from .._show import show
from ..config import check_added
from ..weighting import LossWeighter, build_loss_weighter, weighter_class

logger = logging.getLogger(__name__)

Pair = tuple[str, str]  # names of a classification loss and of a box-regression loss
# What makes a weighter of the names of its losses: a class, or `functools.partial` of one.
MakeWeighter = Callable[..., LossWeighter]
KEY, OLD_KEY = "MODEL.LOSS_WEIGHTER.LOSSES", "MODEL.ALWA.PAIRS"


def build_loss_weighters(
    cfg, pairs: Sequence[Pair], others: Sequence[str] = ()
) -> list[LossWeighter]:
    """
    One weighter for each group of losses that the config names.

    Args:
        pairs: those that the model has
        others: names of the other losses that it has

    Raises:
        ValueError: what are no groups of names, a loss in two of them, a pair whose losses are
            swapped, or a weight for a loss that is in no group
    """
    check_added(cfg)
    weighter = weighter_class(cfg)
    key, given = _given(cfg)
    if given in (None, "pairs"):
        groups = pairs
    elif given == "all":
        groups = [(*(name for pair in pairs for name in pair), *others)]
    else:
        groups = _check_groups(key, given, pairs, weighter)
    names = [name for group in groups for name in group]
    for name in weighter.named_losses(cfg):
        if name not in names:
            raise ValueError(
                f"{weighter.names_key}: expected only losses that {key} says are weighed, "
                f"{', '.join(names)}; got '{name}'"
            )
    return [build_loss_weighter(cfg, *group) for group in groups]


def build_one_weighter(cfg, model: str, pair: Pair, others: Sequence[str] = ()) -> LossWeighter:
    """The weighter of a model that has room for one group; see :func:`build_loss_weighters`."""
    weighters = build_loss_weighters(cfg, [pair], others)
    if len(weighters) > 1:
        key, given = _given(cfg)
        raise ValueError(f"{key}: expected one pair for {model}, {list(pair)}, got {given}")
    check_weighed(weighters, [*pair, *others])
    return weighters[0]


def make_weighter(
    where: str, given: LossWeighter | MakeWeighter, keys: Sequence[str]
) -> LossWeighter:
    """
    The weighter that a model's constructor was given, or that what it was given makes.

    Args:
        where: the constructor's argument, for the message
        keys: names of the losses of a weighter that has still to be made

    Raises:
        ValueError: neither a weighter nor what makes one
    """
    made = given(*keys) if callable(given) and not isinstance(given, LossWeighter) else given
    if not isinstance(made, LossWeighter):
        raise ValueError(
            f"{where}: expected a LossWeighter, or a class or function that makes one of the names "
            f"of its losses, got {show(given)}"
        )
    return made


def check_weighed(weighters: Iterable[LossWeighter], losses: Collection[str], every=False) -> None:
    """
    Raises a ValueError where the model does not have a weighter's losses.

    Args:
        losses: names of those that the model has
        every: whether each of them must be a weighter's
    """
    weighed = set()
    for weighter in weighters:
        weighed.update(weighter.keys)
        for key in weighter.keys:
            if key not in losses:
                raise ValueError(
                    f"loss_weighter ({KEY}): {list(weighter.keys)} needs the loss '{key}'; this "
                    f"model has {', '.join(sorted(losses))}"
                )
    if every and weighed < set(losses):
        left = ", ".join(sorted(set(losses) - weighed))
        raise ValueError(
            f"{KEY}: expected that all losses of this model are known when it is built, found "
            f"{left} besides {', '.join(sorted(weighed))}; give lists of names in place of 'all'"
        )


def repeated(groups: Iterable[Sequence[str]]) -> tuple[str, int] | None:
    """The first loss that groups name more than once, and how often; None where there is none."""
    counts = Counter(name for group in groups for name in group)
    return next((found for found in counts.items() if found[1] > 1), None)


def _given(cfg):
    """The key that is set, and what it says."""
    given, old = cfg.MODEL.LOSS_WEIGHTER.LOSSES, cfg.MODEL.ALWA.PAIRS
    if not old:
        return KEY, given
    if given is None:
        logger.info(f"{OLD_KEY} is now called {KEY}, and means that.")
    elif given != old:
        raise ValueError(
            f"{KEY} and {OLD_KEY}, its old name: expected one of them, got {show(given)} and "
            f"{show(old)}"
        )
    return OLD_KEY, old


def _check_groups(key: str, groups, pairs: Sequence[Pair], weighter: type[LossWeighter]):
    """The groups, refused where they are none."""
    if not isinstance(groups, (list, tuple)) or not groups or not all(map(_is_group, groups)):
        raise ValueError(
            f'{key}: expected "pairs", "all" or lists of names, a pair as [classification loss, '
            f"box loss], got {show(groups)}"
        )
    if twice := repeated(groups):
        raise ValueError(f"{key}: expected each loss once, got '{twice[0]}' again")
    first, second = ({pair[i] for pair in pairs} for i in (0, 1))
    for group in groups:
        expected = f"{key}: expected [classification loss, box loss]"
        if len(group) == 2 and group[0] in second and group[1] in first:
            raise ValueError(f"{expected}, got {list(group)}, which are swapped")
        if weighter.pairs_only and (group[0] in second or group[1] in first):
            raise ValueError(f"{expected} for {weighter.__name__}, got {list(group)}")
    return groups


def _is_group(group) -> bool:
    is_sequence = isinstance(group, (list, tuple)) and len(group) >= 2
    return is_sequence and all(isinstance(name, str) and name.isidentifier() for name in group)
