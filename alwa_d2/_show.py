"""Values in error messages."""

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
