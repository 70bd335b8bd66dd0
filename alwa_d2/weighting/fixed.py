"""Weights that do not change."""

import torch
from torch import Tensor

from .._show import show
from .base import LOSS_WEIGHTER_REGISTRY, LossWeighter, is_real

LARGEST = torch.finfo(torch.float32).max  # of the losses: a larger weight is infinity to them


def _is_weight(value) -> bool:
    return is_real(value) and 0 <= value <= LARGEST


@LOSS_WEIGHTER_REGISTRY.register()
class Fixed(LossWeighter):
    """The same two weights throughout; 1:1 is a detector without loss weighting."""

    def __init__(self, cls_key="loss_cls", reg_key="loss_box_reg", *, weights=(1.0, 1.0)):
        """
        Args:
            cls_key, reg_key: see :class:`LossWeighter`
            weights: list or tuple, of (classification loss, box-regression loss); at least 0, and
                finite as float32

        Raises:
            ValueError: anything else
        """
        super().__init__(cls_key, reg_key)
        is_pair = isinstance(weights, (list, tuple)) and len(weights) == 2
        if not (is_pair and all(map(_is_weight, weights))):
            raise ValueError(
                "weights (MODEL.LOSS_WEIGHTER.WEIGHTS): expected two finite numbers of at least 0, "
                f"got {show(weights)}"
            )
        # Not part of checkpoints: the config says what the weights are.
        weights = torch.tensor(weights, dtype=torch.float64)  # (2,)
        self.register_buffer("_weights", weights, persistent=False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        return {"weights": cfg.MODEL.LOSS_WEIGHTER.WEIGHTS}

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip((self.cls_key, self.reg_key), self._weights.clone().unbind(), strict=True))
