"""Weights by coefficient of variation (Groenendijk et al., WACV 2021, arXiv 2009.01717)."""

from typing import Any

import torch
from torch import Tensor

from .following import SUM_KEY, Following, is_present, scale_to_sum, sum_in_words
from .options import number
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.COV"


@LOSS_WEIGHTER_REGISTRY.register()
class CoV(Following):
    """
    Each loss is divided by its mean so far; its weight is the standard deviation of these ratios by
    their mean, over all iterations so far (Welford), or with older ones counting less and less. (In
    the authors' code these count less in the means alone, not in the standard deviation.)
    A loss that was seen less than twice has the mean weight.

    An iteration's weights come from the iterations before it. One in which a loss is not present
    (see :func:`is_present`) leaves that loss's figures as they are.
    """

    config_keys = (SUM_KEY, f"{KEY}.DECAY")
    seen: Tensor
    mean_loss: Tensor
    mean_ratio: Tensor
    variance: Tensor

    def __init__(
        self, *keys: str, decay: float = 0.0, sum_to: float = 0, process_group: Group = None
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            decay: factor by which what was so far counts less with each iteration, at least 0 and
                below 1; 0: all count alike. The first iteration is all there is at first: it
                counts more than all later ones together for about 0.7 / (1 - decay) iterations
            sum_to: what the weights sum to; 0: their number

        Raises:
            ValueError: another type or value
        """
        super().__init__(*keys, interval=1, sum_to=sum_to, process_group=process_group)
        self.decay = number(f"decay ({KEY}.DECAY)", decay, least=0, below=1)
        self.register_buffer("seen", self._vector(0.0))  # iterations in which a loss was present
        self.register_buffer("mean_loss", self._vector(0.0))
        self.register_buffer("mean_ratio", self._vector(0.0))  # of the ratios
        self.register_buffer("variance", self._vector(0.0))  # of the ratios, population

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER
        return {"decay": given.COV.DECAY, "sum_to": given.SUM_TO}

    def settings(self) -> str:
        text = f"decay={self.decay:g}" if self.decay else "all iterations alike"
        return text + sum_in_words(self.sum_to)

    def _fresh(self) -> dict[str, float]:
        own = dict.fromkeys(("seen", "mean_loss", "mean_ratio", "variance"), 0.0)
        return {**super()._fresh(), **own}

    def from_losses(self, losses: Tensor) -> Tensor:
        present = is_present(losses)
        losses = torch.where(present, losses, 1)
        seen = self.seen + 1
        # How much the new iteration counts: all of it the first time.
        new = 1 / seen
        if self.decay:
            new = torch.where(seen == 1, new, 1 - self.decay)
        ratio = torch.where(seen == 1, 1, losses / torch.where(seen == 1, 1, self.mean_loss))
        mean_ratio = torch.lerp(self.mean_ratio, ratio, new)
        # Welford's step; with a constant `new` it is that of a decayed variance. 0 the first time.
        spread = (ratio - self.mean_ratio) * (ratio - mean_ratio)
        variance = torch.lerp(self.variance, spread, new)
        mean_loss = torch.lerp(self.mean_loss, losses, new)
        for name, value in (
            ("seen", seen), ("mean_loss", mean_loss), ("mean_ratio", mean_ratio),
            ("variance", variance),
        ):  # fmt: skip
            buffer = getattr(self, name)
            buffer.copy_(torch.where(present, value, buffer))
        known = self.seen >= 2
        coefficient = self.variance.sqrt() / torch.where(known, self.mean_ratio, 1)
        return scale_to_sum(coefficient, self.sum_to, known)
