"""Anchors that are made once for feature maps of given sizes, and kept."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..detectron2_private import become

MOST_KEPT = 16  # sizes of images; the least recently used are given up


class LevelAnchors(list):
    """
    Boxes of each level, as Detectron2's generator gives them, which are parts of one tensor.

    Attributes:
        all_levels: (R, 4), that tensor. It is kept: nobody may change it.
    """

    def __init__(self, all_levels: Tensor, counts: list[int]):
        self._parts = all_levels.split(counts)
        super().__init__(Boxes(level) for level in self._parts)
        self.all_levels = all_levels

    def is_unchanged(self):
        """Whether nobody has put other boxes, or other tensors into the boxes (`Boxes.clip`)."""
        mine = [boxes.tensor for boxes in self]
        return len(mine) == len(self._parts) and all(map(_is, mine, self._parts))


def cat_anchors(anchors: list[Boxes]) -> Boxes:
    """`Boxes.cat` of the levels' anchors, without a copy where they are parts of one tensor."""
    if isinstance(anchors, LevelAnchors) and anchors.is_unchanged():
        return Boxes(anchors.all_levels)
    return anchors[0] if len(anchors) == 1 else Boxes.cat(anchors)


@dataclass(eq=False)
class _Kept:
    """Anchors, and what they were made of."""

    cells: list[Tensor]
    versions: list[int]  # of the cells, then of the anchors
    all_levels: Tensor
    counts: list[int]  # of anchors on each level

    def is_current(self, cells):
        same = len(cells) == len(self.cells) and all(map(_is, cells, self.cells))
        return same and self.versions == _versions(cells, self.all_levels)


class KeptAnchorGenerator(DefaultAnchorGenerator):
    """
    Detectron2's anchor generator that keeps the anchors of the last 16 sizes of feature maps (16
    bytes an anchor: 3 MB for RetinaNet's 201,600 of an image of 800 x 1333 pixels).

    Those whose cell anchors were moved, replaced or changed since, and those that somebody changed,
    are made anew; but writes that PyTorch does not count, through `.data` or NumPy, are not
    noticed. While a model is traced, scripted, compiled or exported nothing is kept or looked up.
    What a CUDA graph was given while it was captured stays for good: its replays read the same
    memory.
    """

    box_dim: torch.jit.Final[int] = 4  # scripting looks for it in this very class
    _kept = None  # of one that has made no anchors; keep_anchors_of runs no __init__

    def forward(self, features: list[Tensor]):
        if torch.jit.is_scripting():
            # As in the base class, whose method scripting cannot call.
            grid_sizes = [feature_map.shape[-2:] for feature_map in features]
            return [Boxes(x) for x in self._grid_anchors(grid_sizes)]
        return self._made_or_kept(features)

    @torch.jit.unused
    def _made_or_kept(self, features: list[Tensor]) -> list[Boxes]:
        cells = list(self.cell_anchors)
        if not _may_keep(cells):
            return super().forward(features)
        if self._kept is None:
            self._kept, self._captured = OrderedDict(), []
        sizes = tuple(tuple(x.shape[-2:]) for x in features)
        key = (sizes, tuple(self.strides), self.offset, cells[0].device, cells[0].dtype)
        entry = self._kept.pop(key, None)
        capturing = cells[0].is_cuda and torch.cuda.is_current_stream_capturing()
        found = entry is not None and entry.is_current(cells)
        if not found:
            entry = self._make(features, cells)
        # Made while capturing, they have numbers from the graph's first replay on, for it alone.
        if found or not (capturing or entry.all_levels.is_inference()):
            self._kept[key] = entry
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        if capturing:
            self._captured.append(entry)
        return LevelAnchors(entry.all_levels, entry.counts)

    def _make(self, features, cells):
        levels = [boxes.tensor for boxes in super().forward(features)]
        all_levels = torch.cat(levels)
        counts = [len(level) for level in levels]
        versions = [] if all_levels.is_inference() else _versions(cells, all_levels)
        return _Kept(cells, versions, all_levels, counts)

    def __getstate__(self):
        """Copies and files of the model come without the anchors."""
        return {key: x for key, x in self.__dict__.items() if key not in ("_kept", "_captured")}


def keep_anchors_of(generator: nn.Module) -> None:
    """Makes Detectron2's anchor generator one that keeps its anchors, in place; a subclass of
    somebody's own stays as it is."""
    if type(generator) is DefaultAnchorGenerator:
        become(generator, KeptAnchorGenerator)


def _may_keep(cells) -> bool:
    """Whether the anchors are tensors with numbers, not the record of how they come about."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return len(cells) > 0 and all(type(x) is Tensor and not x.is_inference() for x in cells)


def _versions(cells, all_levels):
    """Numbers that in-place changes raise."""
    return [x._version for x in (*cells, all_levels)]


def _is(x, y):
    return x is y
