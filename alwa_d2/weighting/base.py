"""What a loss weighter is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._show import show
from .constant import Constant
from .method_id import METHOD_ID, HasMethodId
from .processes import Group, check_agreement

PAIR = ("loss_cls", "loss_box_reg")
Stats = Mapping[str, Any] | None  # key -> alwa_d2.layers.LossStats


class LossWeighter(HasMethodId):
    """
    Weights of two or more losses, in force for one iteration at a time.

    A subclass sets `weights` and, where it learns from the losses, overrides `observe`, `step` and
    `reset`, which call this class's. All state that a training needs is in buffers; nothing is read
    on the host but at the end of a window. A model whose kernels take a scale uses
    `kernel_weights`, `observe` and `step` by themselves; any other training loop calls the weighter
    on its dictionary of losses, once an iteration, while the module trains.

    Attributes:
        keys: names of the losses in the dictionaries of losses
        known_before: whether the weights are known before the losses are, so that kernels can
            multiply with them. A weighter whose weights follow from the losses of the same
            iteration, or are learnt, says False and may override `weigh`.
        pairs_only: whether the losses must be a classification loss and a box loss, in this order
        names_key: config key that `named_losses` reads
        config_keys: config keys that `from_config` reads, for the line at the start that says which
            are set without effect; None: not said
        rank_buffers: names of buffers that each process has its own value of, which a checkpoint of
            the main process's model alone would lose. All others are the same on all processes.
        observed: what the iteration saw, for logging: (unweighted losses, statistics or None), both
            detached, or None before the first
        learning_rate: of its parameters, where it learns weights: the trainer gives them a group of
            their own in the optimizer
        auto_step: whether a call, or the model, ends the iteration by itself. False where several
            batches make one step of the optimizer: then call `step` after it. What was observed
            until then counts as one iteration, with the mean of each loss.
    """

    known_before: bool = True
    pairs_only: ClassVar[bool] = False
    names_key: ClassVar[str] = "MODEL.LOSS_WEIGHTER"
    config_keys: ClassVar[tuple[str, ...] | None] = None
    rank_buffers: tuple[str, ...] = ()
    learning_rate: float | None = None
    keys = Constant[tuple[str, ...]]()
    _batches: Tensor
    _batch_mean: Tensor
    # A detector that is scripted for inference has no use for its weighter.
    __jit_unused_properties__ = [
        "weights", "statistics", "observing", "auto_step", "cls_key", "reg_key", METHOD_ID,
    ]  # fmt: skip

    def __init__(self, *keys: str, process_group: Group = None) -> None:
        """
        Args:
            keys: of the losses, at least two; none: "loss_cls" and "loss_box_reg"
            process_group: of the processes that have the same weights, as in
                :class:`torch.nn.SyncBatchNorm`; None: all

        Raises:
            ValueError: what are no names, fewer than two, or one twice
        """
        super().__init__()
        keys = keys or PAIR
        if not all(isinstance(key, str) and key for key in keys):
            raise ValueError(
                f"{type(self).__name__}: expected names of losses, got {show(keys)} (options are "
                "given by keyword)"
            )
        if len(keys) < 2:
            raise ValueError(f"{type(self).__name__}: expected two or more losses, got {keys}")
        for key in keys:
            if keys.count(key) > 1:
                count = "two" if len(keys) == 2 else len(keys)
                raise ValueError(f"{type(self).__name__}: expected {count} keys, got '{key}' twice")
        self.keys = keys
        self.process_group = process_group
        self.observed: tuple[dict[str, Tensor], Stats] | None = None
        # Of the batches since the last step: tensors, with which compiled code can count.
        none, mean = torch.zeros((), dtype=torch.int64), torch.zeros(len(keys), dtype=torch.float64)
        self.register_buffer("_batches", none, persistent=False)
        self.register_buffer("_batch_mean", mean, persistent=False)
        self.auto_step = True
        self._agreed = False  # whether the processes' states were compared

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:  # it counts on the host: code is compiled anew for each number
            cls.step = torch.compiler.disable(cls.step)  # type: ignore[method-assign]

    @property
    def auto_step(self) -> bool:
        return self._auto_step

    @auto_step.setter
    def auto_step(self, value: bool) -> None:
        self._auto_step = value
        self._batches.zero_()

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        """Keyword arguments of a Detectron2 config."""
        return {}

    @classmethod
    def build(cls, cfg: Any, keys: Sequence[str]) -> "LossWeighter":
        """The weighter of some losses that a config describes."""
        return cls(*keys, **cls.from_config(cfg))

    def attach(self, model: nn.Module) -> None:
        """Called by the model that it is in, when that is built; for methods that look into it."""

    @classmethod
    def named_losses(cls, cfg: Any) -> list[str]:
        """Losses that the config gives settings of their own; each must be weighed by something."""
        return []

    @property
    def cls_key(self) -> str:
        """The classification loss of a pair."""
        return self.keys[0]

    @property
    def reg_key(self) -> str:
        """The box-regression loss of a pair."""
        return self.keys[1]

    @property
    def weights(self) -> dict[str, Tensor]:
        """
        The weights in force: key -> 0-dim float64 tensor, a copy that later updates leave. Those
        that follow from the losses are the last ones.
        """
        raise NotImplementedError

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What moved the weights last: key -> 0-dim float64 tensor, or empty."""
        return {}

    def kernel_weights(self) -> dict[str, Tensor]:
        """
        `weights` where kernels may multiply with them; empty where `weigh` has to do it, after the
        losses are known or because the weights have a gradient. Also empty in eval mode, in which
        losses stay as they are.
        """
        weights = self.weights if self.known_before and self.training else {}
        return {} if any(weight.requires_grad for weight in weights.values()) else weights

    def weigh(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        The weighted losses of this iteration, in their dtypes.

        Args:
            losses: has the weighter's keys, unweighted scalar tensors
        """
        weighted = {}
        for key, weight in self.weights.items():
            loss = self._loss(losses, key, detach=False)
            wide = torch.promote_types(loss.dtype, torch.float32)  # float16 may not hold the weight
            weighted[key] = (loss.to(wide) * weight.to(wide)).to(loss.dtype)
        return weighted

    def observe(self, losses: Mapping[str, Tensor], stats: Stats = None) -> None:
        """
        Takes in this iteration's unweighted losses. Does nothing in eval mode or without gradients.

        Args:
            losses: has the weighter's keys, scalar tensors; other keys are not looked at
            stats: key -> LossStats of the kernels, kept for logging
        """
        if not self.observing:
            return
        seen = {key: self._loss(losses, key) for key in self.keys}
        if not self.auto_step:
            self._take_batch(self._batch_mean, torch.stack([x.double() for x in seen.values()]))
            self._batches.add_(1)
            seen = dict(zip(self.keys, self._batch_mean.clone().unbind(), strict=True))
        self.observed = (seen, stats)

    def _take_batch(self, mean: Tensor, new: Tensor) -> None:
        """Takes a batch, before it is counted, into a mean over the iteration's batches, (n,)."""
        if not self.auto_step:
            new = torch.where(self._batches == 0, new, mean + (new - mean) / (self._batches + 1))
        mean.copy_(new)

    def _seen(self) -> dict[str, Tensor]:
        """The unweighted losses of the observed iteration."""
        if self.observed is None:
            raise RuntimeError(f"{type(self).__name__}: expected `observe` before `step`")
        return self.observed[0]

    def step(self) -> None:
        """
        Ends an observed iteration, on the host, like a scheduler's `step`.

        Raises:
            RuntimeError: in the first step, where the processes have different states
        """
        if not self.auto_step:
            self._batches.zero_()
        if self.observing and not self._agreed:
            self._agreed = True
            check_agreement(self)

    def shared_state(self) -> dict[str, Tensor]:
        """Name -> tensor: what must be the same on all processes."""
        return {
            name: buffer.detach()
            for name, buffer in self.state_dict().items()
            if name not in self.rank_buffers and not name.endswith(METHOD_ID)
        }

    def reset(self) -> bool:
        """Goes back to the state of a new weighter, in place; whether it had left that."""
        self._batches.zero_()
        return False

    @property
    def observing(self) -> bool:
        """Whether losses are taken in now: the module trains and gradients are enabled."""
        return self.training and torch.is_grad_enabled()

    @torch.jit.unused
    def forward(self, losses: Mapping[str, Tensor], stats: Stats = None) -> dict[str, Tensor]:
        """
        An iteration at once: the losses weighted, then `observe` and `step`. In eval mode the
        losses come back as they are and nothing changes.

        Args:
            losses: key -> loss, with the weighter's keys
            stats: see :meth:`observe`

        Returns:
            A new dictionary; weighted losses keep their dtype, other entries are the same objects.
        """
        if not self.training:
            return dict(losses)
        weighted = {**losses, **self.weigh(losses)}
        self.take_in(losses, stats)
        return weighted

    def take_in(self, losses: Mapping[str, Tensor], stats: Stats = None) -> None:
        """`observe`, and `step` where that is not left to the training loop."""
        if self.observing:
            self.observe(losses, stats)
            self.end_iteration()

    def end_iteration(self) -> None:
        """`step`, where something was observed and it is not left to the training loop."""
        if self.observing and self.auto_step:
            self.step()

    def without_effect(self, max_iter: int) -> list[str]:
        """What of its settings does nothing in a training of so many iterations, and why."""
        return []

    def settings(self) -> str:
        """The settings in words, for logs and `repr`."""
        return ""

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (", ".join(self.keys), self.settings())))

    def _loss(self, losses: Mapping[str, Tensor], key: str, detach: bool = True) -> Tensor:
        if key not in losses:
            raise KeyError(f"losses: expected the key '{key}', got {sorted(losses)}")
        loss = losses[key]
        if not isinstance(loss, Tensor) or not loss.is_floating_point() or loss.dim() != 0:
            is_tensor = isinstance(loss, Tensor)
            got = f"{loss.dtype} of shape {list(loss.shape)}" if is_tensor else type(loss).__name__
            raise TypeError(f"losses['{key}']: expected a floating-point 0-dim tensor, got {got}")
        return loss.detach() if detach else loss

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._batches.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LossWeighter":
        """Takes the state to another device, but leaves its dtypes where the model's are cast."""

        def keep_dtype(x: Tensor) -> Tensor:
            y = fn(x)
            return y if y.dtype == x.dtype else x.to(y.device)

        return super()._apply(keep_dtype, recurse)


def weighters_of(model: nn.Module) -> list[LossWeighter]:
    """All loss weighters in a model."""
    return [module for module in model.modules() if isinstance(module, LossWeighter)]
