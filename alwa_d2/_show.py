"""Values and numbers in messages."""

import re
import reprlib
from typing import Any

# Deep nesting and long texts, lists and numbers are cut: the message must stay readable, and must
# not itself fail on the value that it is about.
_REPR = reprlib.Repr()
_REPR.maxlevel = 5
_REPR.maxdict = _REPR.maxset = 20
_REPR.maxlist = _REPR.maxtuple = 100
_REPR.maxstring = _REPR.maxother = 300
_REPR.maxlong = 60


def show(value: Any) -> str:
    """`repr(value)`, shortened where it is long or deep; never an error of its own."""
    try:
        return _REPR.repr(value)
    except Exception:  # repr() of an integer of thousands of digits raises ValueError
        return f"a {type(value).__name__} that cannot be printed"


# The first word in the plural: boxes and classes lose "es", others "s".
_PLURAL = re.compile(r"\b(\w+(?:x|ss))es\b|\b(\w*[^\Ws])s\b")


def counted(number: int, plural: str) -> str:
    """The number and what it counts, such as "1 box of zero area" for "boxes of zero area"."""
    one = _PLURAL.sub(lambda found: found[1] or found[2], plural, count=1)
    return f"{number:,} {one if number == 1 else plural}"
