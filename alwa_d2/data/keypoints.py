"""Names of keypoints, and which change places when an image is flipped."""

import re

from .._show import show

# A word for a side and its opposite, as parts of a name: left_eye, eyeLeft, l_eye, eye-r, L.
_SIDES = (("left", "right"), ("l", "r"))


def flip_pairs(names: list[str], given: list | None) -> list[list[str]]:
    """Pairs of `names` that are each other's mirror image.

    `given` pairs, or those whose names differ in the words left and right (or l and r) alone.
    ValueError for a given pair that is not one of names, or a name in two pairs.
    """
    if given is not None:
        flat = [name for pair in given for name in pair]
        if not all(isinstance(name, str) and name in names for name in flat):
            raise ValueError(f"expected pairs of {show(names)}, got {show(given)}")
        if len(set(flat)) < len(flat):
            raise ValueError(f"expected each name in one pair, got {show(given)}")
        return [list(pair) for pair in given]
    known = {_words(name): name for name in names}
    pairs = []
    for name in names:
        for left, right in _SIDES:
            words = _words(name)
            mirrored = tuple(right if word == left else word for word in words)
            if mirrored != words and mirrored in known:
                pairs.append([name, known[mirrored]])
                break
    return pairs


def _words(name: str) -> tuple[str, ...]:
    """left_eye, left-eye, LeftEye, leftEye -> ("left", "eye"); lefteye too."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    spaced = re.sub(r"(?i)(left|right)", r" \1 ", spaced)
    return tuple(re.findall(r"[^\W_]+", spaced.lower()))
