"""Python's garbage collector, kept out of the way of large files."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage is looked for meanwhile; also a decorator.

    The collector would look through millions of new dicts again and again and find nothing: reading
    a COCO file of 118,000 images and 826,000 objects takes 44 s without it and 85 s with it (on two
    busy cores).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
