"""Images of a data set: which ones are taken, how far along they are, and their pixels."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
from detectron2.data.detection_utils import read_image
from tqdm import tqdm

from ..errors import user_errors

T = TypeVar("T")


def spread(total: int, count: int) -> list[int]:
    """`count` of the indices 0..total - 1, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def read(path: str, form: str) -> np.ndarray:
    """
    (height, width, channels) of an image as Detectron2 reads it; `form` is an INPUT.FORMAT.

    Raises:
        UserError: names the file, if it cannot be read
    """
    with user_errors(path):
        return read_image(path, form)


def progress(images: Iterable[T]) -> Iterable[T]:
    """The images or their numbers, with a bar where someone watches."""
    return tqdm(images, "images", leave=False, disable=None)
