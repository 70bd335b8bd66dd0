"""Weights that do not change."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._show import show
from .base import LossWeighter
from .by_loss import by_loss, for_each, is_by_loss
from .options import FLOAT32, is_real
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.WEIGHTS"
DEFAULT = (1.0, 1.0)  # in a config: 1 for all losses, however many there are
ALL_1: dict[str, float] = {}


def is_weight(value: Any) -> bool:
    """True for a number of at least 0 that is finite as float32."""
    return is_real(value) and 0 <= value <= FLOAT32.max


@LOSS_WEIGHTER_REGISTRY.register()
class Fixed(LossWeighter):
    """The same weights throughout; 1 for all is a detector without loss weighting."""

    names_key = KEY
    config_keys = (KEY,)
    _weights: Tensor

    def __init__(
        self,
        *keys: str,
        weights: Sequence[float] | Mapping[str, float] = ALL_1,
        process_group: Group = None,
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            weights: a sequence, as many as keys and in their order, or name -> weight, where a loss
                without one has 1; at least 0, and finite as float32

        Raises:
            ValueError: anything else
        """
        super().__init__(*keys, process_group=process_group)
        self._values = self._check(weights)
        # Not part of checkpoints: the config says what the weights are.
        values = torch.tensor(self._values, dtype=torch.float64)  # (n,)
        self.register_buffer("_weights", values, persistent=False)

    def _check(self, weights: Any) -> tuple[float, ...]:
        where = f"weights ({KEY})"
        if isinstance(weights, Mapping) and all(isinstance(name, str) for name in weights):
            expected = "a finite number of at least 0"
            given = for_each(where, weights, self.keys, is_weight, expected)
            return tuple(float(given.get(key, 1)) for key in self.keys)
        is_list = isinstance(weights, Sequence) and len(weights) == len(self.keys)
        if not (is_list and all(map(is_weight, weights))):
            count = "two" if len(self.keys) == 2 else len(self.keys)
            raise ValueError(
                f"{where}: expected {count} finite numbers of at least 0, or such numbers by the "
                f"names of their losses, got {show(weights)}"
            )
        return tuple(map(float, weights))

    @classmethod
    def named_losses(cls, cfg: Any) -> list[str]:
        given = cfg.MODEL.LOSS_WEIGHTER.WEIGHTS
        return [name for name, _ in given] if is_by_loss(given) else []

    @classmethod
    def build(cls, cfg: Any, keys: Sequence[str]) -> "Fixed":
        given = cfg.MODEL.LOSS_WEIGHTER.WEIGHTS
        if given and is_by_loss(given):
            named = by_loss(KEY, given)
            given = {key: named[key] for key in keys if key in named}
        elif isinstance(given, (list, tuple)) and tuple(given) == DEFAULT:
            given = ALL_1
        return cls(*keys, weights=given)

    def settings(self) -> str:
        return f"weights={':'.join(f'{value:g}' for value in self._values)}"

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.keys, self._weights.clone().unbind(), strict=True))
