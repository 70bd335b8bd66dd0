"""What ALWA's options may be."""

from typing import Any, NoReturn

from .._show import show
from .alwa_statistics import VARIANTS
from .options import is_real, whole

RULES = ("authors", "balance")
MAX_INTERVAL = 1_000_000  # the window is held in memory and in every checkpoint, 16 bytes each


def check_options(
    *, variant: Any, rule: Any, interval: Any, min_weight: Any, freeze_after: Any, detrend: Any,
    smoothing: Any,
) -> None:  # fmt: skip
    """Raises ValueError for values, also of other types, that ALWA has no meaning for."""
    if variant not in tuple(VARIANTS):  # compared, not hashed: it may be anything
        _refuse("variant", f"one of {', '.join(VARIANTS)}", variant)
    if rule not in RULES:
        _refuse("rule", f"one of {', '.join(RULES)}", rule)
    whole("interval (MODEL.ALWA.INTERVAL)", interval, least=2)
    if interval > MAX_INTERVAL:
        _refuse("interval", f"at most {MAX_INTERVAL} iterations", interval)
    if not is_real(min_weight) or not 0 < min_weight <= 1:
        _refuse("min_weight", "0 < weight <= 1", min_weight)
    whole("freeze_after (MODEL.ALWA.FREEZE_AFTER)", freeze_after, least=0)
    if not isinstance(detrend, bool):
        _refuse("detrend", "True or False", detrend)
    if detrend and interval < 3:  # of two losses a straight line leaves nothing
        _refuse("interval", "at least 3 iterations with DETREND", interval)
    if not is_real(smoothing) or not 0 <= smoothing < 1:
        _refuse("smoothing", "0 <= smoothing < 1", smoothing)


def _refuse(name: str, expected: str, got: Any) -> NoReturn:
    key = f"MODEL.ALWA.{name.upper()}"
    raise ValueError(f"{name} ({key}): expected {expected}, got {show(got)}")
