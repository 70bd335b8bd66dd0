"""Weights that are larger the smaller a loss is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .by_loss import by_loss, for_each, is_by_loss
from .following import FLOOR, SUM_KEY, Following, is_present, scale_to_sum, sum_in_words
from .options import FLOAT32, is_real, number, one_of
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.INVERSE"
FORMS = ("reciprocal", "geometric", "softmax")


@LOSS_WEIGHTER_REGISTRY.register()
class Inverse(Following):
    """
    Weights of each iteration from its own losses L, without a gradient:

    - form "reciprocal": share / L, so that each weighted loss is the same share of the total. The
      gradient is that of sum(share log L), in proportion.
    - form "geometric": the gradient of the losses' geometric mean G = exp(sum(share log L)), whose
      true weights are share G / L. The total is `sum_to` times G.
    - form "softmax": softmax(1 / (T L)) (arXiv 2408.07985).

    The first and the third sum to `sum_to`; of the second, only where all losses are equal. A loss
    that is not present (see :func:`is_present`) has the mean weight, and the others share the rest.
    Losses below 1e-4 count as that.
    """

    names_key = f"{KEY}.TARGET"
    config_keys = (SUM_KEY, f"{KEY}.FORM", f"{KEY}.TARGET", f"{KEY}.TEMPERATURE")
    _share: Tensor

    def __init__(
        self,
        *keys: str,
        form: str = "reciprocal",
        target: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        sum_to: float = 0,
        process_group: Group = None,
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            form: "reciprocal", "geometric" or "softmax"
            target: name of a loss -> its share of the total, relative to the others'; above 0, and
                1 for losses that are not there. None: equal shares
            temperature: T of "softmax", above 0
            sum_to: what the weights sum to; 0: their number

        Raises:
            ValueError: anything else
        """
        super().__init__(*keys, interval=0, sum_to=sum_to, process_group=process_group)
        self.form = one_of(f"form ({KEY}.FORM)", form, FORMS)
        self.temperature = number(f"temperature ({KEY}.TEMPERATURE)", temperature, above=0)
        where = f"target ({KEY}.TARGET)"
        shares = for_each(where, target or {}, self.keys, _is_share, "a finite number above 0")
        self._shares = [float(shares.get(key, 1)) for key in self.keys]
        share = torch.tensor(self._shares, dtype=torch.float64)
        self.register_buffer("_share", share, persistent=False)

    @classmethod
    def named_losses(cls, cfg: Any) -> list[str]:
        given = cfg.MODEL.LOSS_WEIGHTER.INVERSE.TARGET
        return [name for name, _ in given] if is_by_loss(given) else []

    @classmethod
    def build(cls, cfg: Any, keys: Sequence[str]) -> "Inverse":
        given = cfg.MODEL.LOSS_WEIGHTER.INVERSE
        if not is_by_loss(given.TARGET):
            raise ValueError(f"{KEY}.TARGET: expected a list of [loss, share], got {given.TARGET}")
        named = by_loss(f"{KEY}.TARGET", given.TARGET)
        return cls(
            *keys,
            form=given.FORM,
            target={key: named[key] for key in keys if key in named},
            temperature=given.TEMPERATURE,
            sum_to=cfg.MODEL.LOSS_WEIGHTER.SUM_TO,
        )

    def settings(self) -> str:
        text = f"form={self.form}"
        if self.form == "softmax":
            text += f", temperature={self.temperature:g}"
        else:
            text += f", shares={':'.join(f'{share:g}' for share in self._shares)}"
        return text + sum_in_words(self.sum_to)

    def without_effect(self, max_iter: int) -> list[str]:
        if self.form == "softmax":
            equal = len(set(self._shares)) == 1
            return [] if equal else [f"{KEY}.TARGET: FORM softmax has no shares"]
        usual = self.temperature == 1
        return [] if usual else [f"{KEY}.TEMPERATURE: FORM {self.form} has none"]

    def from_losses(self, losses: Tensor) -> Tensor:
        present = is_present(losses)
        losses = torch.where(present, losses, 1).clamp(min=FLOOR)
        if self.form == "softmax":
            scores = torch.where(present, 1 / (self.temperature * losses), -math.inf)
            # Of no loss at all a softmax is not a number, and all weights are the mean.
            return scale_to_sum(scores.softmax(0).nan_to_num(), self.sum_to, present)
        weights = self._share / losses
        if self.form == "reciprocal":
            return scale_to_sum(weights, self.sum_to, present)
        share = torch.where(present, self._share, 0)
        total = share.sum()
        share = share / torch.where(total > 0, total, 1)
        mean = (share * losses.log()).sum().exp()
        count = len(self.keys)
        each = (self.sum_to or count) / count
        return torch.where(present, each * present.sum() * share * mean / losses, each)


def _is_share(value: Any) -> bool:
    return is_real(value) and FLOAT32.tiny <= value <= FLOAT32.max
