"""Settings that differ from loss to loss."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .._show import show


def is_by_loss(value: Any) -> bool:
    """Whether a config's value is a list of [name of a loss, setting]."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)
        for item in value
    )


def by_loss(where: str, value: Sequence[Any]) -> dict[str, Any]:
    """
    Name -> setting.

    Args:
        where: the config key, for the message
        value: a list as :func:`is_by_loss` finds it

    Raises:
        ValueError: a loss is there twice
    """
    names = [name for name, _ in value]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: expected each loss once, got '{name}' again")
    return dict(value)


def for_each(
    where: str, given: Any, keys: Iterable[str], fits: Callable[[Any], bool], expected: str
) -> Mapping[str, Any]:
    """
    The settings by name, checked.

    Args:
        where: argument and config key, for the message
        given: name -> setting, in a mapping of any kind, as LazyConfigs have their own
        keys: the weighter's losses
        fits: whether a setting can be used
        expected: the same in words

    Raises:
        ValueError: a loss that the weighter does not weigh, or a setting that does not fit
    """
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"{where}: expected {expected}, got {show(given)}")
    for name, setting in given.items():
        if name not in keys:
            raise ValueError(f"{where}: expected names out of {', '.join(keys)}, got '{name}'")
        if not fits(setting):
            raise ValueError(f"{where}: '{name}': expected {expected}, got {show(setting)}")
    return given
