"""Statistics of a batch's per-anchor losses."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.export import register_dataclass


@dataclass(frozen=True, eq=False)
class LossStats:
    """Count, sum, spread and range of the unscaled per-anchor losses of one batch.

    Every property is a 0-dim float64 tensor on the losses' device: reading one does not wait for
    the device, printing it does. Programs of `torch.export` and `torch.compile` may return it.

    Attributes:
        values: (5,) float64, detached: count, sum, sum of squares, min, max. Without any anchor
            these are 0, 0, 0, +inf, -inf.
    """

    values: Tensor

    @property
    def count(self) -> Tensor:
        """Number of anchors with a loss."""
        return self.values[0]

    @property
    def sum(self) -> Tensor:
        return self.values[1]

    @property
    def sum_of_squares(self) -> Tensor:
        return self.values[2]

    @property
    def min(self) -> Tensor:
        return self.values[3]

    @property
    def max(self) -> Tensor:
        return self.values[4]

    @property
    def mean(self) -> Tensor:
        """Mean loss of an anchor; 0 without any."""
        return self.sum / self.count.clamp(min=1)

    @property
    def std(self) -> Tensor:
        """Population standard deviation (divisor `count`); 0 without any."""
        variance = self.sum_of_squares / self.count.clamp(min=1) - self.mean.square()
        return variance.clamp(min=0).sqrt()


register_dataclass(LossStats, serialized_type_name="alwa_d2.layers.LossStats")
# A saved program has its example inputs with it, which are loaded as weights are.
torch.serialization.add_safe_globals([LossStats])


def split_scale(scale: float | Tensor | None) -> tuple[Tensor | None, float]:
    """The ops' pair (scale tensor or None, factor) for a `scale` that is a number, tensor or None.

    Raises:
        ValueError: for a tensor that requires grad: no gradient flows to it.
        TypeError: for anything else.
    """
    if scale is None:
        return None, 1.0
    if isinstance(scale, Tensor):
        if scale.requires_grad:
            raise ValueError("scale: expected a detached tensor, got one that requires grad")
        return scale, 1.0
    if isinstance(scale, Real):
        return None, float(scale)
    raise TypeError(f"scale: expected a float or a 0-dim tensor, got {type(scale).__name__}")


def as_levels(x: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """A tensor or a sequence of level tensors as the list that the ops take."""
    return [x] if isinstance(x, Tensor) else list(x)


def reduced_dtype(x: Tensor) -> torch.dtype:
    """dtype of a loss reduced over many pairs: float64 for float64 input, otherwise float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
