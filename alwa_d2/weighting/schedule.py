"""Weights that follow a plan."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .base import LossWeighter
from .by_loss import by_loss, for_each, is_by_loss
from .fixed import is_weight
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.SCHEDULE"
Course = Sequence[tuple[int, float]]
EXPECTED = "a list of [iteration, weight], iterations rising from 0 on, finite weights from 0 on"


def _is_course(value: Any) -> bool:
    """Whether a value is such a list, with at least one point."""
    if not isinstance(value, Sequence) or not value:
        return False
    if not all(isinstance(point, Sequence) and len(point) == 2 for point in value):
        return False
    iterations = [iteration for iteration, _ in value]
    if not all(isinstance(x, Integral) and not isinstance(x, bool) for x in iterations):
        return False
    rising = all(a < b for a, b in pairwise(iterations)) and iterations[0] >= 0
    return rising and all(is_weight(weight) for _, weight in value)


@LOSS_WEIGHTER_REGISTRY.register()
class Schedule(LossWeighter):
    """
    Weights that are given at some iterations, a straight line between two of them.

    Before its first point a loss has that point's weight, after the last one that one's; a loss
    without points has 1. The iteration is counted in a buffer, so that a resumed training goes on.
    """

    names_key = KEY
    config_keys = (KEY,)
    iteration: Tensor
    _first: Tensor
    _starts: Tensor
    _lengths: Tensor
    _slopes: Tensor

    def __init__(
        self, *keys: str, points: Mapping[str, Course] | None = None, process_group: Group = None
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            points: name of a loss -> [(iteration, weight), ...], iterations rising from 0 on; None:
                all weights 1

        Raises:
            ValueError: other points, or those of a loss that is not among `keys`
        """
        super().__init__(*keys, process_group=process_group)
        points = for_each(f"points ({KEY})", points or {}, self.keys, _is_course, EXPECTED)
        self._points = {key: list(points.get(key, [(0, 1.0)])) for key in self.keys}
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        first, starts, lengths, slopes = self._lines()
        self.register_buffer("_first", first, persistent=False)  # weight before any line, (n,)
        # The lines of each loss, (n, P): where they start, how long they are (in iterations; 0
        # where a loss has fewer lines than another), and how steep.
        self.register_buffer("_starts", starts, persistent=False)
        self.register_buffer("_lengths", lengths, persistent=False)
        self.register_buffer("_slopes", slopes, persistent=False)

    def _lines(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        courses = list(self._points.values())
        count = max(map(len, courses)) - 1
        first = torch.tensor([course[0][1] for course in courses], dtype=torch.float64)
        starts, lengths, slopes = torch.zeros(3, len(courses), count, dtype=torch.float64).unbind()
        for row, course in enumerate(courses):
            for column, ((a, low), (b, high)) in enumerate(pairwise(course)):
                starts[row, column] = a
                lengths[row, column] = b - a
                slopes[row, column] = (high - low) / (b - a)
        return first, starts, lengths, slopes

    @classmethod
    def named_losses(cls, cfg: Any) -> list[str]:
        return list(cls._points_of(cfg))

    @classmethod
    def build(cls, cfg: Any, keys: Sequence[str]) -> "Schedule":
        points = cls._points_of(cfg)
        return cls(*keys, points={key: points[key] for key in keys if key in points})

    @staticmethod
    def _points_of(cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER.SCHEDULE
        if not is_by_loss(given):
            raise ValueError(f"{KEY}: expected a list of [loss, {EXPECTED}], got {given}")
        return by_loss(KEY, given)

    def settings(self) -> str:
        courses = (
            f"{key} {', '.join(f'{weight:g} at {i}' for i, weight in course)}"
            for key, course in self._points.items()
        )
        return "; ".join(courses)

    def without_effect(self, max_iter: int) -> list[str]:
        # A point acts from the iteration after the one before it on.
        return [
            f"{KEY}: the point of {key} at iteration {course[-1][0]} acts after SOLVER.MAX_ITER "
            f"{max_iter}"
            for key, course in self._points.items()
            if len(course) > 1 and course[-2][0] >= max_iter - 1
        ]

    @property
    def weights(self) -> dict[str, Tensor]:
        passed = (self.iteration - self._starts).clamp(min=0).minimum(self._lengths)
        # Rounding must not take a weight below 0.
        weights = (self._first + (passed * self._slopes).sum(1)).clamp(min=0)
        return dict(zip(self.keys, weights.unbind(), strict=True))

    def step(self) -> None:
        super().step()
        if self.observing:
            self.iteration.add_(1)

    def reset(self) -> bool:
        super().reset()
        moved = bool(self.iteration > 0)
        self.iteration.zero_()
        return moved
