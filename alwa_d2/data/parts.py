"""Parts of a data set that has no lists of its own, such as 80 % to train on and the rest to test.

A part goes by the names of the images alone: they are put in an order that a hash of seed and name
gives, and a part is a stretch of it. Stretches that do not overlap have no image in common,
whatever the order of the file, the number of processes or the machine.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from .._show import show
from .names import plain

_NUMBER = r"(\d+(?:\.\d+)?)\s*%?"
_FORMS = {  # form -> the stretch in percent
    rf"(?:first\s+)?{_NUMBER}": lambda share: (0, share),
    rf"(?:last\s+|-\s*){_NUMBER}": lambda share: (100 - share, 100),
    rf"{_NUMBER}\s*(?:-|to)\s*{_NUMBER}": lambda start, stop: (start, stop),
}
EXPECTED = '"first 80%" (or "80%"), "last 20%" (or "-20%"), or a stretch such as "70%-85%"'


@dataclass(frozen=True)
class Part:
    """The images between two percentages of the order that `seed` gives."""

    text: str  # as the user wrote it
    start: Fraction
    stop: Fraction
    seed: int

    def of(self, names: Sequence[str]) -> set[str]:
        """The names that belong to the part; a name that occurs twice counts once."""
        order = sorted({plain(name) for name in names}, key=self._rank)
        ends = (self.start, self.stop)
        bounds = [math.floor(len(order) * at / 100 + Fraction(1, 2)) for at in ends]
        chosen = set(order[slice(*bounds)])
        return {name for name in names if plain(name) in chosen}

    def _rank(self, name: str) -> tuple[bytes, str]:
        data = f"{self.seed}:{name}".encode(errors="surrogateescape")
        return hashlib.sha256(data).digest(), name

    def overlaps(self, other: "Part") -> bool:
        """Whether two parts of the same images may have some in common."""
        apart = self.stop <= other.start or other.stop <= self.start
        return self.seed != other.seed or not apart

    def __str__(self) -> str:
        return f'part "{self.text}" with seed {self.seed}'


def parse_part(text: str, seed: int) -> Part:
    """The part that `text` names; ValueError for another text than EXPECTED says."""
    for form, stretch in _FORMS.items():
        match = re.fullmatch(form, text.strip(), re.IGNORECASE)
        if match and "%" in text:
            start, stop = stretch(*map(Fraction, match.groups()))
            if 0 <= start < stop <= 100:
                return Part(text, Fraction(start), Fraction(stop), seed)
    raise ValueError(f"expected {EXPECTED}, got {show(text)}")
