"""What a loss weighter is, and how a config builds one."""

from numbers import Real
from typing import Any

import torch
from fvcore.common.registry import Registry
from torch import Tensor, nn

from .._show import show

LOSS_WEIGHTER_REGISTRY = Registry("LOSS_WEIGHTER")
LOSS_WEIGHTER_REGISTRY.__doc__ = """
Registry of loss weighters: subclasses of :class:`LossWeighter` with a classmethod
`from_config(cfg)` that returns their keyword arguments.
"""


def is_real(value: Any) -> bool:
    """True for a real number; False for bool, which Python counts as one."""
    return isinstance(value, Real) and not isinstance(value, bool)


class LossWeighter(nn.Module):
    """
    Weights of a classification and a box-regression loss, in force for one iteration at a time.

    Subclasses set `weights` and, where they learn from the losses, `observe` and `step`. A model
    whose kernels take a scale uses the three by themselves; any other training loop calls the
    weighter on its dictionary of losses, once an iteration, while the module trains.

    Attributes:
        observed: what the last `observe` saw, for logging: (unweighted losses, statistics or None),
            both detached, or None before the first.
        rank_buffers: names of buffers that each process has its own value of, which a checkpoint of
            the main process's model alone would lose.
    """

    rank_buffers: tuple[str, ...] = ()
    # A detector that is scripted for inference has no use for its weighter.
    __jit_unused_properties__ = ["weights", "statistics", "observing"]

    def __init__(self, cls_key: str = "loss_cls", reg_key: str = "loss_box_reg"):
        """
        Args:
            cls_key, reg_key: keys of the two losses in the dictionaries of losses
        """
        super().__init__()
        if cls_key == reg_key:
            raise ValueError(f"cls_key and reg_key: expected two keys, got '{cls_key}' twice")
        self.cls_key = cls_key
        self.reg_key = reg_key
        self.observed = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights in force: key -> 0-dim float64 tensor, a copy that later updates leave."""
        raise NotImplementedError

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What moved the weights last: key -> 0-dim float64 tensor, or empty."""
        return {}

    def observe(self, losses: dict[str, Tensor], stats=None) -> None:
        """
        Takes in this iteration's unweighted losses. Does nothing in eval mode or without gradients.

        Args:
            losses: has the pair's two keys, scalar tensors; other keys are not looked at
            stats: key -> LossStats of the kernels, kept for logging
        """
        if self.observing:
            pair = {key: self._loss(losses, key) for key in (self.cls_key, self.reg_key)}
            self.observed = (pair, stats)

    def step(self) -> None:
        """Ends an observed iteration, on the host, like a scheduler's `step`."""

    def reset(self) -> bool:
        """Goes back to the state of a new weighter, in place; whether it had left that."""
        return False

    @property
    def observing(self) -> bool:
        """Whether losses are taken in now: the module trains and gradients are enabled."""
        return self.training and torch.is_grad_enabled()

    @torch.jit.unused
    def forward(self, losses: dict[str, Tensor], stats=None) -> dict[str, Tensor]:
        """
        An iteration at once: the losses weighted by the weights in force before it, then `observe`
        and `step`. In eval mode the losses come back as they are and nothing changes.

        Args:
            losses: key -> loss, with the pair's two keys
            stats: see :meth:`observe`

        Returns:
            A new dictionary; weighted losses keep their dtype, other entries are the same objects.
        """
        if not self.training:
            return dict(losses)
        weights = self.weights
        weighted = dict(losses)
        for key, weight in weights.items():
            loss = self._loss(losses, key, detach=False)
            weighted[key] = loss * weight.to(loss.dtype)
        if self.observing:
            self.observe(losses, stats)
            self.step()
        return weighted

    def _loss(self, losses, key, detach=True) -> Tensor:
        if key not in losses:
            raise KeyError(f"losses: expected the key '{key}', got {sorted(losses)}")
        loss = losses[key]
        if not isinstance(loss, Tensor) or not loss.is_floating_point() or loss.dim() != 0:
            is_tensor = isinstance(loss, Tensor)
            got = f"{loss.dtype} of shape {list(loss.shape)}" if is_tensor else type(loss).__name__
            raise TypeError(f"losses['{key}']: expected a floating-point 0-dim tensor, got {got}")
        return loss.detach() if detach else loss

    def _apply(self, fn, recurse=True):
        """Takes the state to another device, but leaves its dtypes where the model's are cast."""

        def keep_dtype(x):
            y = fn(x)
            return y if y.dtype == x.dtype else x.to(y.device)

        return super()._apply(keep_dtype, recurse)


def build_loss_weighter(cfg, cls_key: str, reg_key: str) -> LossWeighter:
    """
    The weighter that `cfg.MODEL.LOSS_WEIGHTER.NAME` names, for one pair of losses.

    Raises:
        ValueError: an unknown name, or a value that the weighter refuses
    """
    name = cfg.MODEL.LOSS_WEIGHTER.NAME
    if not isinstance(name, str) or name not in LOSS_WEIGHTER_REGISTRY:
        names = sorted(key for key, _ in LOSS_WEIGHTER_REGISTRY)
        raise ValueError(
            f"MODEL.LOSS_WEIGHTER.NAME: expected one of {', '.join(names)}, got {show(name)}"
        )
    weighter = LOSS_WEIGHTER_REGISTRY.get(name)
    return weighter(cls_key, reg_key, **weighter.from_config(cfg))
