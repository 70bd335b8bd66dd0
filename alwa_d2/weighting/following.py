"""What weighters have in common whose weights follow from their losses by a formula."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .base import LossWeighter
from .options import number
from .processes import Group, average

logger = logging.getLogger(__name__)

# Smaller losses count as this where weights divide by losses, so that no weight is infinite.
FLOOR = 1e-4
SUM_KEY = "MODEL.LOSS_WEIGHTER.SUM_TO"


def is_present(losses: Tensor) -> Tensor:
    """
    Which losses there are, in a batch or a window: those that are finite and above 0.

    A detector's loss is exactly 0 where a batch has nothing to compute it from, such as a box.
    """
    return losses.isfinite() & (losses > 0)


def in_order(losses: Mapping[str, Tensor], keys: Iterable[str]) -> Tensor:
    """The losses' values, (n,) float64."""
    return torch.stack([losses[key].double() for key in keys])


def scale_to_sum(weights: Tensor, sum_to: float = 0, present: Tensor | None = None) -> Tensor:
    """
    The weights in the same proportions, with another sum.

    A method whose weights sum to 1 would otherwise be compared at a fraction of the learning rate.

    Args:
        weights: (n,), of at least 0, not all 0
        sum_to: MODEL.LOSS_WEIGHTER.SUM_TO; 0: n, as if all weights were 1
        present: (n,) bool; the other weights become the mean. None: all, and not all are 0
    """
    if present is None:
        return weights * ((sum_to or len(weights)) / weights.sum())
    mean = (sum_to or len(weights)) / len(weights)
    weights = torch.where(present, weights, 0)
    total = weights.sum()
    share = weights * (mean * present.sum() / torch.where(total > 0, total, 1))
    return torch.where(present & (total > 0), share, mean)


def sum_in_words(sum_to: float) -> str:
    """For a weighter's settings; nothing for the default."""
    return f", sum_to={sum_to:g}" if sum_to else ""


class Following(LossWeighter):
    """
    Weights that a subclass's `from_losses` makes of the losses' means over all processes.

    With an interval of C iterations these are means over windows of so many, and new weights act
    from the next iteration on: they are known before the losses. With interval 0 the weights of an
    iteration follow from its own losses, before these are weighed, without a gradient. Either way
    the processes average n numbers, in one collective: at a window's end, or for each batch. All
    weights are `sum_to` / n at first (0: 1).
    """

    rank_buffers: tuple[str, ...] = ()
    weight_vector: Tensor
    total: Tensor
    slot: Tensor

    def __init__(
        self, *keys: str, interval: int, sum_to: float = 0, process_group: Group = None
    ) -> None:
        super().__init__(*keys, process_group=process_group)
        self.sum_to = number(f"sum_to ({SUM_KEY})", sum_to, least=0)
        self.interval = interval
        self.known_before = interval > 0
        self.register_buffer("weight_vector", self._vector(self._first()))  # in force, or the last
        self._count = 0  # host copy of slot
        if interval:
            self.rank_buffers = ("total",)
            self.register_buffer("total", self._vector(0.0))  # this process's, of this window
            self.register_buffer("slot", torch.zeros((), dtype=torch.int64))  # iterations in it

    def _first(self) -> float:
        return self.sum_to / len(self.keys) or 1.0

    def _vector(self, value: float) -> Tensor:
        return torch.full((len(self.keys),), value, dtype=torch.float64)

    def from_losses(self, losses: Tensor) -> Tensor:
        """
        The weights, (n,); called once a window, or for each batch.

        Args:
            losses: (n,) float64 means, the same on all processes; see :func:`is_present`
        """
        raise NotImplementedError

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.keys, self.weight_vector.clone().unbind(), strict=True))

    def weigh(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.observing and not self.known_before:
            values = in_order({key: self._loss(losses, key) for key in self.keys}, self.keys)
            average(values, self.process_group)
            self.weight_vector.copy_(self.from_losses(values))
        return super().weigh(losses)

    @torch.no_grad()
    def _end_window(self) -> None:
        mean = self.total / self.interval
        average(mean, self.process_group)
        self.weight_vector.copy_(self.from_losses(mean))
        self.total.zero_()

    def step(self) -> None:
        super().step()
        if not (self.observing and self.interval):
            return
        self.total.add_(in_order(self._seen(), self.keys))
        self._count += 1
        if self._count == self.interval:
            self._count = 0
            self._end_window()
        self.slot.fill_(self._count)

    def _fresh(self) -> dict[str, float]:
        """Buffer -> its value before a training."""
        return {
            "weight_vector": self._first(),
            **({"total": 0.0, "slot": 0} if self.interval else {}),
        }

    def reset(self) -> bool:
        super().reset()
        before = [getattr(self, name).clone() for name in self._fresh()]
        for name, value in self._fresh().items():
            getattr(self, name).fill_(value)
        self._count = 0
        after = [getattr(self, name) for name in self._fresh()]
        return not all(
            torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(before, after, strict=True)
        )

    def shared_state(self) -> dict[str, Tensor]:
        # DistributedDataParallel copies the buffers of the first process, but not what it counts.
        count = torch.tensor(self._count).to(self.weight_vector.device)
        return {"count": count, **super().shared_state()}

    def _load_from_state_dict(self, *args: Any) -> None:
        """A window that is longer than this one's begins anew; see `torch.nn.Module`."""
        super()._load_from_state_dict(*args)
        if not self.interval:
            return
        self._count = int(self.slot)
        if not 0 <= self._count < self.interval:
            logger.info(
                f"The checkpoint's window of {' and '.join(self.keys)} is not one of "
                f"{self.interval} iterations: a new one begins."
            )
            self._count = 0
            self.slot.zero_()
            self.total.zero_()
