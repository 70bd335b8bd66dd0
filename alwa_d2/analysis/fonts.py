"""Fonts that have the letters of a text, and short stand-ins where no font has them."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageFont

# Matplotlib's own: there on any machine, with letters of many scripts.
DEFAULT = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
# Fonts that have a sign for every letter there is, and it is always an empty box.
_EMPTY = ("lastresort", "adobeblank")


def _letters(text: str) -> frozenset[str]:
    """What a font has to have; blanks and line breaks need no sign."""
    return frozenset(letter for letter in text if letter.isprintable() and not letter.isspace())


def _has(path: str, letters: frozenset[str]) -> bool:
    try:
        font = FT2Font(path)
    except (RuntimeError, OSError):  # broken, or of a kind that FreeType does not read
        return False
    return font.scalable and all(font.get_char_index(ord(letter)) for letter in letters)


@lru_cache
def _installed() -> list[str]:
    """Font files of this machine; upright ones of ordinary weight and without serifs first."""

    def rank(path: str) -> tuple[bool, bool, str]:
        name = Path(path).name.lower()
        return "regular" not in name, "sans" not in name, path

    found = font_manager.findSystemFonts()  # not Matplotlib's list, which may be of another day
    return sorted((p for p in found if not any(e in p.lower() for e in _EMPTY)), key=rank)


@lru_cache
def _find(letters: frozenset[str]) -> str | None:
    return next((path for path in (DEFAULT, *_installed()) if _has(path, letters)), None)


def font_file(text: str) -> str | None:
    """A font that has all letters of `text`; None if this machine has none."""
    return _find(_letters(text))


@lru_cache
def _load(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """A font of `size` pixels for `text`, to be drawn with Pillow."""
    return _load(font_file(text) or DEFAULT, size)


def readable(text: str) -> str:
    """The text with "?" for what cannot be drawn."""
    if font_file(text):
        return text
    return "".join(letter if _has(DEFAULT, _letters(letter)) else "?" for letter in text)


def stand_ins(names: Sequence[str], mark: str) -> list[str]:
    """The names, and in place of those that no font can draw `mark` and their index."""
    return [name if font_file(name) else f"{mark}{index}" for index, name in enumerate(names)]


def legend(names: Sequence[str], mark: str) -> str:
    """A line for the terminal that tells what the stand-ins of `names` stand for; "" for none."""
    pairs = [(short, name) for short, name in zip(stand_ins(names, mark), names) if short != name]
    if not pairs:
        return ""
    listed = ", ".join(f"{short} is {name}" for short, name in pairs)
    return f"no font on this machine has the letters of some names; in the picture {listed}"


def fit_fonts(figure: Figure) -> None:
    """Gives each text of a figure of Matplotlib's a font that has its letters."""
    for text in figure.findobj(Text):
        words = text.get_text()
        path = font_file(words)
        if path is None:
            text.set_text(readable(words))
        elif path != DEFAULT:
            old = text.get_fontproperties()
            text.set_fontproperties(FontProperties(fname=path, size=old.get_size_in_points()))
