"""What a model reads of an object beside its class and box.

Readers of data sets are called without a config, by Detectron2's catalog. What the config wants is
noted here by the data sets' names, so that training and evaluation leave out the same objects.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from detectron2.config import CfgNode


@dataclass(frozen=True)
class Needs:
    """None: no config has said so; what the file has is checked and taken along."""

    masks: bool | None = None  # MODEL.MASK_ON
    mask_format: str = ""  # INPUT.MASK_FORMAT: "polygon" or "bitmask", "" for either
    keypoints: bool | None = None  # MODEL.KEYPOINT_ON


_needs: dict[str, Needs] = {}


def note_needs(cfg: CfgNode, names: Iterable[str]) -> None:
    """From now on, the data sets `names` are read for the model of `cfg`."""
    needs = Needs(cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT, cfg.MODEL.KEYPOINT_ON)
    _needs.update(dict.fromkeys(names, needs))


def needs_of(name: str) -> Needs:
    """What is wanted of a data set."""
    return _needs.get(name, Needs())
