"""Pictures as PNG files that stay light."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .fonts import fit_fonts

MAX_PNG_BYTES = 300_000  # per picture, so that a page with several of them stays light
DPI = 110  # dots per inch of a figure at full size: small print can just be read
RGB = tuple[int, int, int]  # 0..255 each


def pack(image: Image.Image, colours: int, keep: tuple[RGB, ...]) -> bytes:
    """A PNG of `image` with a palette of `colours`, in which those of `keep` stay exact.

    The palette comes from a sixteenth of the pixels, since k-means is slow. No dithering: it looks
    noisy, packs badly, and makes two copies of a picture differ.
    """
    thin = image.resize((image.width // 4 + 1, image.height // 4 + 1), Image.Resampling.NEAREST)
    found = thin.quantize(colours - len(keep), kmeans=2).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*sum(keep, ()), *found])
    indices = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    for index, colour in enumerate(keep):
        indices[(np.asarray(image) == colour).all(axis=-1)] = index
    packed = Image.fromarray(indices)
    packed.putpalette(palette.getpalette())
    packed.save(buffer := io.BytesIO(), "PNG", optimize=True)
    return buffer.getvalue()


def save_png(draw: Callable[[float], Image.Image], path: Path, keep: tuple[RGB, ...] = ()) -> None:
    """Writes `draw(scale)` to `path`, in colours and size what MAX_PNG_BYTES allow (scale <= 1)."""
    scale, data = 1.0, b""
    while not data or len(data) > MAX_PNG_BYTES:
        image = draw(scale).convert("RGB")
        for colours in (256, 128, 64):
            data = pack(image, colours, ((255, 255, 255), *keep))
            if len(data) <= MAX_PNG_BYTES:
                break
        scale *= 0.95
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def rasterise(figure: Figure, scale: float) -> Image.Image:
    """The figure's pixels at `scale` times DPI dots per inch, each text in a font that has it."""
    fit_fonts(figure)
    figure.savefig(buffer := io.BytesIO(), dpi=DPI * scale)
    return Image.open(buffer)
