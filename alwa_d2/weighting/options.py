"""Checks of weighters' options, in the words of all error messages."""

import math
from numbers import Integral, Real
from typing import Any

import torch

from .._show import show

FLOAT32 = torch.finfo(torch.float32)  # beyond it a loss, or its weight, would not be finite


def is_real(value: Any) -> bool:
    """True for a real number; False for bool, which Python counts as one."""
    return isinstance(value, Real) and not isinstance(value, bool)


def number(
    where: str, value: Any, *, least: float = -math.inf, above: float = -math.inf,
    below: float = math.inf,
) -> float:  # fmt: skip
    """
    A real number in float32's range, checked.

    Args:
        where: argument and config key, for the message
        value: whatever was given
        least, above, below: least <= value, above < value < below

    Raises:
        ValueError: anything else
    """
    is_number = is_real(value) and -math.inf < value < math.inf
    if not (is_number and least <= value and above < value < below):
        bounds = [f"of at least {least:g}"] if least > -math.inf else []
        bounds += [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        raise ValueError(
            f"{where}: expected a finite number {' and '.join(bounds)}, got {show(value)}"
        )
    if value and not FLOAT32.tiny <= abs(value) <= FLOAT32.max:
        raise ValueError(
            f"{where}: expected 0, or a number of a size from 1.2e-38 to 3.4e38 (float32's range), "
            f"got {show(value)}"
        )
    return float(value)


def whole(where: str, value: Any, *, least: int) -> int:
    """The same for whole numbers, True and False left out."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{where}: expected an integer of at least {least}, got {show(value)}")
    return int(value)


def one_of(where: str, value: Any, names: tuple[str, ...]) -> str:
    """A name out of some."""
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{where}: expected one of {', '.join(names)}, got {show(value)}")
    return value
