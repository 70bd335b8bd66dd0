"""Random loss weighting (Lin et al., TMLR 2022, arXiv 2111.10603)."""

import math
import random
from typing import Any

import torch
from torch import Tensor

from .base import LossWeighter
from .following import SUM_KEY, sum_in_words
from .options import number, whole
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY


@LOSS_WEIGHTER_REGISTRY.register()
class RLW(LossWeighter):
    """
    The softmax of normal numbers, drawn anew for each iteration: the control that a method which
    looks at the losses has to beat.

    The numbers follow from seed, iteration and names of the losses, on the host: they are the same
    on all processes and after resuming, and no other random number of the training depends on them.
    """

    config_keys = (SUM_KEY,)
    iteration: Tensor
    _weights: Tensor

    def __init__(
        self, *keys: str, seed: int = 0, sum_to: float = 0, process_group: Group = None
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            seed: at least 0
            sum_to: what the weights sum to; 0: their number

        Raises:
            ValueError: another type or value
        """
        super().__init__(*keys, process_group=process_group)
        self.seed = whole("seed", seed, least=0)
        self.sum_to = number(f"sum_to ({SUM_KEY})", sum_to, least=0) or len(self.keys)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))
        self._count = 0  # host copy of iteration
        values = torch.ones(len(self.keys), dtype=torch.float64)
        self.register_buffer("_weights", values, persistent=False)
        self._draw()

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        # Detectron2 takes a seed below 0 for "any", which would differ from process to process.
        return {"seed": max(cfg.SEED, 0), "sum_to": cfg.MODEL.LOSS_WEIGHTER.SUM_TO}

    def settings(self) -> str:
        own = self.sum_to if self.sum_to != len(self.keys) else 0
        return f"seed={self.seed}{sum_in_words(own)}"

    def _draw(self) -> None:
        draw = random.Random(f"{self.seed} {self._count} {' '.join(self.keys)}")
        exponentials = [math.exp(draw.gauss(0, 1)) for _ in self.keys]
        total = sum(exponentials)
        for i, value in enumerate(exponentials):
            # Fills are kernels that take a number; a copy from the host would have it wait.
            self._weights[i].fill_(self.sum_to * value / total)

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.keys, self._weights.clone().unbind(), strict=True))

    def step(self) -> None:
        super().step()
        if self.observing:
            self._count += 1
            self.iteration.fill_(self._count)
            self._draw()

    def reset(self) -> bool:
        super().reset()
        moved = self._count > 0
        self._count = 0
        self.iteration.zero_()
        self._draw()
        return moved

    def shared_state(self) -> dict[str, Tensor]:
        count = torch.tensor(self._count).to(self.iteration.device)
        return {"count": count, **super().shared_state()}

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._count = int(self.iteration)
        self._draw()
