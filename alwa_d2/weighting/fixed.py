"""Weights that do not change."""

import math

import torch
from torch import Tensor

from .base import LOSS_WEIGHTER_REGISTRY, LossWeighter


@LOSS_WEIGHTER_REGISTRY.register()
class Fixed(LossWeighter):
    """The same two weights throughout; 1:1 is a detector without loss weighting."""

    def __init__(self, cls_key="loss_cls", reg_key="loss_box_reg", *, weights=(1.0, 1.0)):
        """
        Args:
            cls_key, reg_key: see :class:`LossWeighter`
            weights: of (classification loss, box-regression loss); finite, at least 0
        """
        super().__init__(cls_key, reg_key)
        if len(weights) != 2 or not all(math.isfinite(w) and w >= 0 for w in weights):
            raise ValueError(
                "weights (MODEL.LOSS_WEIGHTER.WEIGHTS): expected two finite numbers of at least 0, "
                f"got {list(weights)}"
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
