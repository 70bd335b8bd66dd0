"""Fast adaptive multitask optimization (Liu et al., NeurIPS 2023, arXiv 2306.03792)."""

from typing import Any

import torch
from torch import Tensor

from .following import FLOOR, SUM_KEY, Following, is_present, scale_to_sum, sum_in_words
from .options import number
from .processes import Group
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.FAMO"
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam's, as in the paper's experiments


@LOSS_WEIGHTER_REGISTRY.register()
class FAMO(Following):
    """
    Lets all losses fall at the same relative rate: weights z / L, where z = softmax of logits, and
    a logit falls where its loss's logarithm has fallen more than the others'.

    The paper computes the losses of a batch again after the optimizer's step. Here the next batch's
    losses stand for that second forward: it costs nothing, and the differences between batches are
    noise in it. An iteration's losses are compared with those of the one before, and the logits
    that they give act in the next. Adam moves the logits, with its state in buffers; a loss that is
    not present (see :func:`is_present`) counts as one that has not moved, and is compared with its
    last value when it comes back. Losses below 1e-4 count as that.
    """

    config_keys = (SUM_KEY, f"{KEY}.LR", f"{KEY}.DECAY")
    logits: Tensor
    moments: Tensor
    updates: Tensor
    previous: Tensor
    _shared: Tensor

    def __init__(
        self,
        *keys: str,
        lr: float = 0.025,
        decay: float = 1e-3,
        sum_to: float = 0,
        process_group: Group = None,
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            lr: learning rate of the logits, at least 0
            decay: weight decay of the logits, at least 0
            sum_to: what the weights sum to; 0: their number

        Raises:
            ValueError: another type or value
        """
        super().__init__(*keys, interval=0, sum_to=sum_to, process_group=process_group)
        self.lr = number(f"lr ({KEY}.LR)", lr, least=0)
        self.decay = number(f"decay ({KEY}.DECAY)", decay, least=0)
        self.register_buffer("logits", self._vector(0.0))
        self.register_buffer("moments", torch.zeros(2, len(self.keys), dtype=torch.float64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.float64))
        self.register_buffer("previous", self._vector(torch.nan))  # the last losses that were there
        # This iteration's losses, the mean over batches and processes.
        self.register_buffer("_shared", self._vector(torch.nan), persistent=False)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER
        return {"lr": given.FAMO.LR, "decay": given.FAMO.DECAY, "sum_to": given.SUM_TO}

    def settings(self) -> str:
        return f"lr={self.lr:g}, decay={self.decay:g}{sum_in_words(self.sum_to)}"

    def _fresh(self) -> dict[str, float]:
        own = {"logits": 0.0, "moments": 0.0, "updates": 0.0, "previous": torch.nan}
        return {**super()._fresh(), **own}

    def from_losses(self, losses: Tensor) -> Tensor:
        self._take_batch(self._shared, losses)
        present = is_present(losses)
        z = torch.where(present, self.logits, -torch.inf).softmax(0).nan_to_num()
        return scale_to_sum(z / losses.clamp(min=FLOOR).nan_to_num(), self.sum_to, present)

    def step(self) -> None:
        super().step()
        if self.observing:
            self._update(self._shared)

    def _update(self, losses: Tensor) -> None:
        """Adam's step for the logits, by how the losses' logarithms have changed."""
        usable = is_present(losses) & is_present(self.previous)
        fall = self.previous.clamp(min=FLOOR).log() - losses.clamp(min=FLOOR).log()
        fall = torch.where(usable, fall, 0)
        z = self.logits.softmax(0)
        gradient = z * (fall - (z * fall).sum()) + self.decay * self.logits
        updates = self.updates + 1
        first = torch.lerp(gradient, self.moments[0], BETAS[0])
        second = torch.lerp(gradient.square(), self.moments[1], BETAS[1])
        mean = first / (1 - BETAS[0] ** updates)
        size = (second / (1 - BETAS[1] ** updates)).sqrt() + EPSILON
        moves = usable.any()
        for buffer, value in (
            (self.logits, self.logits - self.lr * mean / size),
            (self.moments, torch.stack([first, second])),
            (self.updates, updates),
        ):
            buffer.copy_(torch.where(moves, value, buffer))
        self.previous.copy_(torch.where(is_present(losses), losses, self.previous))
