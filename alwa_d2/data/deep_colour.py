"""Images of 16 bits a colour, of which Pillow takes the high byte alone.

That is right where the values fill the 16 bits. Cameras and microscopes write 10, 12 or 14 of them
into the low end: such images are read nearly black, without a word.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from .findings import ERROR, Findings, Kind

NEARLY_BLACK = Kind(
    "data sets of 16-bit colour that would be read nearly black", ERROR,
    "multiply the values to fill 16 bits, or convert to 8 bits, with one factor for all images",
)  # fmt: skip

# High byte that one value of a data set reaches at least: 14 bits and fewer stay below.
_FULL = 64


def is_deep(image: Image.Image) -> bool:
    """Whether an image, open and not yet decoded, has 16 bits in its file and 8 in its mode."""
    if image.mode.startswith("I"):
        return False  # which Pillow reads whole
    raw = [tile[3][0] if isinstance(tile[3], tuple) else tile[3] for tile in image.tile]
    return any(isinstance(mode, str) and ";16" in mode for mode in raw)


def high_byte(image: Image.Image) -> int:
    """The highest of an image's values, 0 to 255, as Pillow reads them; opacity does not count."""
    values = np.asarray(image)
    return int(values[..., :3].max() if image.mode == "RGBA" else values.max())


def check_range(name: str, high_bytes: Iterable[int | None], findings: Findings) -> None:
    """Adds the data set `name` if the values of all images that were looked at end far below 65535.

    Args:
        high_bytes: :func:`high_byte` of each image, None for one of 8 bits or not looked at
    """
    known = [each for each in high_bytes if each is not None]
    if known and max(known) < _FULL:
        text = (
            f"none of {len(known)} images of 16 bits looked at has a value above "
            f"{256 * max(known) + 255}; of each the high byte is read, at most {max(known)} of 255"
        )
        findings.add(NEARLY_BLACK, name, "", text)
