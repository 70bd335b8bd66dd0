"""Dynamic weight average (Liu, Johns and Davison, CVPR 2019, arXiv 1803.10704)."""

from typing import Any

import torch
from torch import Tensor

from .following import SUM_KEY, Following, is_present, scale_to_sum, sum_in_words
from .options import number, whole
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.DWA"


@LOSS_WEIGHTER_REGISTRY.register()
class DWA(Following):
    """
    Larger weights for losses that fall more slowly: softmax(r / T), where r is a loss's mean over a
    window by that over the window before, both unweighted. Equal until two windows have ended.

    The paper's epoch is a window of iterations here. A loss that was not present in a window (see
    :func:`is_present`) has r = 1, as if it had not moved, and is compared with its last mean when
    it comes back.
    """

    config_keys = (SUM_KEY, f"{KEY}.WINDOW", f"{KEY}.TEMPERATURE")
    previous: Tensor

    def __init__(
        self,
        *keys: str,
        window: int = 100,
        temperature: float = 2.0,
        sum_to: float = 0,
        process_group: Group = None,
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            window: iterations, at least 1
            temperature: T, above 0
            sum_to: what the weights sum to; 0: their number

        Raises:
            ValueError: another type or value
        """
        window = whole(f"window ({KEY}.WINDOW)", window, least=1)
        super().__init__(*keys, interval=window, sum_to=sum_to, process_group=process_group)
        self.temperature = number(f"temperature ({KEY}.TEMPERATURE)", temperature, above=0)
        # The last mean that was there; NaN before there is one.
        self.register_buffer("previous", self._vector(torch.nan))

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER.DWA
        return {
            "window": given.WINDOW,
            "temperature": given.TEMPERATURE,
            "sum_to": cfg.MODEL.LOSS_WEIGHTER.SUM_TO,
        }

    def settings(self) -> str:
        text = f"window={self.interval}, temperature={self.temperature:g}"
        return text + sum_in_words(self.sum_to)

    def without_effect(self, max_iter: int) -> list[str]:
        if 2 * self.interval < max_iter:
            return []
        return [
            f"DWA: no two windows of WINDOW {self.interval} iterations end before the last of "
            f"SOLVER.MAX_ITER {max_iter}, and no weight changes"
        ]

    def _fresh(self) -> dict[str, float]:
        return {**super()._fresh(), "previous": torch.nan}

    def from_losses(self, losses: Tensor) -> Tensor:
        ratio = losses / self.previous
        usable = is_present(losses) & is_present(self.previous)
        ratio = torch.where(usable, ratio, 1)
        self.previous.copy_(torch.where(is_present(losses), losses, self.previous))
        # All 1 before the second window's end: equal weights.
        return scale_to_sum((ratio / self.temperature).softmax(0), self.sum_to)
