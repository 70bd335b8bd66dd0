"""Which images of a data set are taken, and how far along they are."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from tqdm import tqdm

T = TypeVar("T")


def spread(total: int, count: int) -> list[int]:
    """`count` of the indices 0..total - 1, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def progress(images: Iterable[T]) -> Iterable[T]:
    """The images or their numbers, with a bar where someone watches."""
    return tqdm(images, "images", leave=False, disable=None)
