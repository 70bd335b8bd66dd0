"""The box loss brought to the size of the classification loss."""

from typing import Any

import torch
from torch import Tensor

from .following import FLOOR, Following, is_present
from .options import number, whole
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.SELFBALANCE"


@LOSS_WEIGHTER_REGISTRY.register()
class SelfBalance(Following):
    """
    The first loss, the classification's, has weight 1; every other L the weight ratio * L_cls / L.

    With period 0 these are the losses of the same iteration (Rank and Sort Loss, ICCV 2021), with a
    longer one their means over so many iterations, and the weights act in the following ones; 1
    before the first has ended. The period comes from aLRP Loss (NeurIPS 2020): an epoch there, and
    the box weight is (L_cls + L) / L. The sum of the weights is not held. A weight stays where its
    loss, or the first, is not present (see :func:`is_present`); losses below 1e-4 count as that.
    Unlike in the published programs, nothing is read on the host.
    """

    config_keys = (f"{KEY}.PERIOD", f"{KEY}.RATIO")

    def __init__(
        self, *keys: str, period: int = 0, ratio: float = 1.0, process_group: Group = None
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            period: iterations; 0: weights of each iteration from its own losses
            ratio: weighted loss over the first one, above 0

        Raises:
            ValueError: another type or value
        """
        period = whole(f"period ({KEY}.PERIOD)", period, least=0)
        super().__init__(*keys, interval=period, process_group=process_group)
        self.ratio = number(f"ratio ({KEY}.RATIO)", ratio, above=0)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER.SELFBALANCE
        return {"period": given.PERIOD, "ratio": given.RATIO}

    def settings(self) -> str:
        return f"period={self.interval}, ratio={self.ratio:g}"

    def without_effect(self, max_iter: int) -> list[str]:
        if self.interval < max_iter:
            return []
        return [
            f"SelfBalance: no period of PERIOD {self.interval} iterations ends before the last of "
            f"SOLVER.MAX_ITER {max_iter}, and no weight changes"
        ]

    def from_losses(self, losses: Tensor) -> Tensor:
        present = is_present(losses)
        losses = losses.clamp(min=FLOOR)
        weights = self.ratio * losses[0] / losses
        weights = torch.where(present & present[0], weights, self.weight_vector)
        return torch.cat([torch.ones_like(weights[:1]), weights[1:]])
