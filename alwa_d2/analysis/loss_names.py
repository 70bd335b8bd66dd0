"""Names of losses, the part after "loss_" in a log: in words, in order, in pairs."""

import re

LABELS = {"cls": "classification", "box_reg": "box", "rpn_cls": "RPN class", "rpn_loc": "RPN box"}


def label(name: str) -> str:
    """A loss's name in words: "cls_stage0" is "classification, stage 0"."""
    stem, _, stage = name.partition("_stage")
    return LABELS.get(stem, stem) + (f", stage {stage}" if stage else "")


def find_pairs(names: list[str]) -> list[tuple[str, str]]:
    """(classification, box loss) of the names that Detectron2's models give them."""
    pairs = []
    for name in names:
        for word in ("box_reg", "loc"):
            other = re.sub(r"(^|_)cls(?=_|$)", rf"\g<1>{word}", name)
            if other != name and other in names:
                pairs.append((name, other))
    return pairs


def in_order(names: list[str]) -> list[str]:
    """The names of LABELS in its order, each stage after the other, then all others."""

    def key(name: str) -> tuple[int, str, int]:
        stem, _, stage = name.partition("_stage")
        order = [*LABELS].index(stem) if stem in LABELS else len(LABELS)
        return order // 2, stage, order

    return sorted(names, key=key)
