"""Weights learnt with the model (Kendall, Gal and Cipolla, CVPR 2018, arXiv 1705.07115)."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .base import LossWeighter
from .following import is_present
from .options import number
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.UNCERTAINTY"


@LOSS_WEIGHTER_REGISTRY.register()
class Uncertainty(LossWeighter):
    """
    A parameter for each loss L, learnt by gradient descent with the model's:

    - exp(-s) L / 2 + s / 2, where s is the logarithm of a variance. At its minimum in s the weight
      is 1 / (2 L) for each loss; s / 2, and with it a weighted loss, can be negative.
    - `revised` (Liebel and Koerner 2018, arXiv 1805.06334): L / (2 c^2) + ln(1 + c^2), never below
      0.

    The second term is part of each weighted loss. The parameters belong into a group of their own
    of the optimizer, with `learning_rate`, without weight decay or gradient clipping: alwa_d2's
    trainer does that. They have a gradient in every iteration, so that `DistributedDataParallel`,
    which must be around the weighter as well, need not search for unused ones; its averages make
    the weights the same on all processes. A loss that is not present (see :func:`is_present`)
    leaves its parameter a gradient of 0.
    """

    known_before = False
    config_keys = (f"{KEY}.REVISED", f"{KEY}.LR", f"{KEY}.START")

    def __init__(
        self,
        *keys: str,
        revised: bool = False,
        lr: float = 1e-3,
        start: float = 1.0,
        process_group: Group = None,
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            revised: which of the two forms
            lr: learning rate of the parameters, above 0
            start: weight of each loss at first, above 0

        Raises:
            ValueError: another type or value
        """
        super().__init__(*keys, process_group=process_group)
        if not isinstance(revised, bool):
            raise ValueError(f"revised ({KEY}.REVISED): expected True or False, got {revised!r}")
        self.revised = revised
        self.learning_rate = number(f"lr ({KEY}.LR)", lr, above=0)
        self.start = number(f"start ({KEY}.START)", start, above=0)
        # s, or c of the revised form; the name is no other parameter's of a detector.
        self.loss_scale = nn.Parameter(torch.full((len(self.keys),), self._first()))

    def _first(self) -> float:
        return math.sqrt(1 / (2 * self.start)) if self.revised else -math.log(2 * self.start)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER.UNCERTAINTY
        return {"revised": given.REVISED, "lr": given.LR, "start": given.START}

    def identity(self) -> tuple[str, ...]:
        return (*super().identity(), *(["revised"] if self.revised else []))

    def settings(self) -> str:
        form = "revised, " if self.revised else ""
        return f"{form}lr={self.learning_rate:g}, start={self.start:g}"

    def _weights(self) -> Tensor:
        """With a gradient, (n,)."""
        if self.revised:
            return 1 / (2 * self.loss_scale.square())
        return (-self.loss_scale).exp() / 2

    @property
    def weights(self) -> dict[str, Tensor]:
        values = self._weights().detach().double()
        return dict(zip(self.keys, values.unbind(), strict=True))

    def weigh(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = self._weights()
        scale = self.loss_scale
        term = scale.square().log1p() if self.revised else scale / 2
        weighted = {}
        for key, weight, own in zip(self.keys, weights.unbind(), term.unbind(), strict=True):
            loss = self._loss(losses, key, detach=False)
            seen = loss.detach().to(weight.dtype)
            present = is_present(seen)
            # The loss's gradient goes through the first product, the parameter's through the
            # second, whose value is 0, so that a loss that is no number does not get into it.
            seen = torch.where(present, seen, 0)
            learnt = (weight - weight.detach()) * seen
            own = torch.where(present, own, own.detach())
            weighted[key] = (loss * weight.detach() + (learnt + own)).to(loss.dtype)
        return weighted

    def reset(self) -> bool:
        super().reset()
        first = torch.full_like(self.loss_scale, self._first())
        moved = not torch.equal(self.loss_scale, first)
        with torch.no_grad():
            self.loss_scale.copy_(first)
        return moved
