"""Numbers and paths that the readers of annotation files take."""

import math
import os
from typing import Any

from .findings import Finding, Findings, Kind

# Pixels: float32, which boxes are computed in, tells whole numbers apart up to here. Numbers far
# beyond it overflow in areas and make IoU and AP NaN without an error.
MAX_PIXELS = 2**24
_MAX_PATH = 4096  # Linux' PATH_MAX


def is_number(value: Any) -> bool:
    """True for finite int and float; False for bool, which Python counts as a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def is_coordinate(value: Any) -> bool:
    """True for an int or float within +-MAX_PIXELS; False for bool and NaN."""
    return type(value) in (int, float) and -MAX_PIXELS <= value <= MAX_PIXELS


def is_below(name: str) -> bool:
    """True if `name` is a path that, joined to a folder, stays in it (links are not followed)."""
    plain = 0 < len(name) <= _MAX_PATH and "\0" not in name
    return plain and not os.path.isabs(name) and ".." not in name.split("/")


def refuse(
    findings: Findings | None,
    kind: Kind,
    file: str,
    object: str,
    found: str,
    error: type[Exception] = ValueError,
) -> None:
    """Adds to `findings` what cannot be used; without them raises `error` with the same words."""
    if findings is None:
        raise error(str(Finding(kind, file, object, found)))
    findings.add(kind, file, object, found)
