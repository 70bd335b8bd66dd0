"""Pictures as PNG files that stay light."""

import numpy as np
from PIL import Image

from alwa_d2.analysis import pictures


def test_a_picture_is_made_smaller_until_it_fits_and_keeps_its_main_colours(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PNG_BYTES", 20_000)
    red = (213, 94, 0)
    scales = []

    def draw(scale):
        scales.append(scale)
        side = round(256 * scale)
        pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels[:, :100] = 253  # close to white, and more frequent
        pixels[:2], pixels[2:4] = red, 255
        return Image.fromarray(pixels)

    pictures.save_png(draw, tmp_path / "a.png", (red,))
    assert (tmp_path / "a.png").stat().st_size <= 20_000
    assert scales[0] == 1.0 and len(scales) > 1 and scales == sorted(scales, reverse=True)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert len(pixels) == round(256 * scales[-1])
    assert (pixels[:2] == red).all() and (pixels[2:4] == 255).all()
