"""Adaptive Loss Weight Adjustment (arXiv 2103.09488)."""

import logging
from numbers import Integral

import torch
import torch.distributed as dist
from torch import Tensor

from .._show import show
from .base import LOSS_WEIGHTER_REGISTRY, LossWeighter, is_real

logger = logging.getLogger(__name__)

# Statistic of a window of losses, (C, 2) -> (2,); the standard deviation is the sample one.
VARIANTS = {
    "ALWA_1": lambda window: window.mean(0) + window.std(0),
    "ALWA_2": lambda window: window.std(0),
}
RULES = ("authors", "balance")
MAX_INTERVAL = 1_000_000  # the window is held in memory and in every checkpoint, 16 bytes each


def _is_capturing(x: Tensor) -> bool:
    """Whether a CUDA graph is being recorded."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _check(variant, rule, interval, min_weight, freeze_after) -> None:
    """Raises ValueError for values, also of other types, that ALWA has no meaning for."""
    if variant not in tuple(VARIANTS):  # compared, not hashed: it may be anything
        _refuse("variant", f"one of {', '.join(VARIANTS)}", variant)
    if rule not in RULES:
        _refuse("rule", f"one of {', '.join(RULES)}", rule)
    if not isinstance(interval, Integral) or interval < 2:
        _refuse("interval", "an integer of at least 2", interval)
    if interval > MAX_INTERVAL:
        _refuse("interval", f"at most {MAX_INTERVAL} iterations", interval)
    if not is_real(min_weight) or not 0 < min_weight <= 1:
        _refuse("min_weight", "0 < weight <= 1", min_weight)
    if not isinstance(freeze_after, Integral) or freeze_after < 0:
        _refuse("freeze_after", "an integer of at least 0", freeze_after)


def _refuse(name: str, expected: str, got) -> None:
    key = f"MODEL.ALWA.{name.upper()}"
    raise ValueError(f"{name} ({key}): expected {expected}, got {show(got)}")


@LOSS_WEIGHTER_REGISTRY.register()
class ALWA(LossWeighter):
    """
    Lowers the classification weight where the classification loss varies more than the box loss.

    After every `interval` iterations a statistic S of either loss over that window is compared. The
    box weight stays 1; the classification weight becomes

    - rule "authors", as published: 1 - (S_cls - S_reg) / S_cls if S_cls > S_reg, of the losses as
      they were weighted in the window; otherwise it stays.
    - rule "balance": S_reg / S_cls within [min_weight, 1], of the unweighted losses, if S_cls > 0.

    A window with a loss that is not finite changes nothing. All state is in buffers (float64 and
    int64), so that a checkpoint of the model holds it. Between the ends of windows no process waits
    for its device or for another process; at an end the windows of all processes are averaged in
    one all-reduce, so that their weights are the same. See docs/method.md.

    Within a compiled or captured region only `weights` and `observe` belong; `step` counts on the
    host, once for each iteration that was observed. DistributedDataParallel needs
    `broadcast_buffers=False`, as Detectron2 has it: each process fills a window of its own.
    """

    _WINDOW = ("window", "slot", "window_start")  # loaded as one unit
    rank_buffers = ("window",)

    def __init__(
        self, cls_key="loss_cls", reg_key="loss_box_reg", *,
        variant="ALWA_2", rule="balance", interval=100, min_weight=0.01, freeze_after=0,
    ):  # fmt: skip
        """
        Args:
            cls_key, reg_key: see :class:`LossWeighter`
            variant: "ALWA_1" (S = mean + standard deviation) or "ALWA_2" (standard deviation)
            rule: "authors" or "balance"
            interval: length C of a window in iterations, 2 to 1 000 000
            min_weight: floor of the classification weight under "balance", in (0, 1]
            freeze_after: iterations from which on the weights stay as they are; 0 for never

        Raises:
            ValueError: another type or value of an argument
        """
        super().__init__(cls_key, reg_key)
        _check(variant, rule, interval, min_weight, freeze_after)
        self.variant = variant
        self.rule = rule
        self.interval = int(interval)
        self.min_weight = min_weight
        self.freeze_after = int(freeze_after)
        for name, value in self._initial_state().items():
            self.register_buffer(name, value)
        self._count = 0  # host copy of slot

    def _initial_state(self) -> dict[str, Tensor]:
        return {
            # Unweighted (cls, reg); rows from `slot` on are of the window before.
            "window": torch.zeros(self.interval, 2, dtype=torch.float64),
            "slot": torch.zeros(1, dtype=torch.int64),  # row of the window to be written next
            "window_start": torch.zeros((), dtype=torch.int64),  # iteration of the window's row 0
            "weight": torch.ones(2, dtype=torch.float64),  # in force: (cls, reg)
            "statistic": torch.full((2,), torch.nan, dtype=torch.float64),  # of the last window
            # The first iteration with a loss that was not finite; -1: none yet.
            "first_nonfinite": torch.full((), -1, dtype=torch.int64),
        }

    @classmethod
    def from_config(cls, cfg) -> dict:
        keys = cfg.MODEL.ALWA
        return {
            "variant": keys.VARIANT,
            "rule": keys.RULE,
            "interval": keys.INTERVAL,
            "min_weight": keys.MIN_WEIGHT,
            "freeze_after": keys.FREEZE_AFTER,
        }

    def extra_repr(self) -> str:
        return (
            f"{self.cls_key}:{self.reg_key}, variant={self.variant}, rule={self.rule}, "
            f"interval={self.interval}"
        )

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip((self.cls_key, self.reg_key), self.weight.clone().unbind(), strict=True))

    @property
    def statistics(self) -> dict[str, Tensor]:
        """S of the last full window: NaN before the first."""
        return dict(zip((self.cls_key, self.reg_key), self.statistic.clone().unbind(), strict=True))

    def observe(self, losses: dict[str, Tensor], stats=None) -> None:
        super().observe(losses, stats)
        if not self.observing:
            return
        pair, _ = self.observed
        row = (pair[self.cls_key], pair[self.reg_key])
        if torch.compiler.is_compiling() or _is_capturing(self.window):
            # What is compiled or replayed later cannot know the slot when it is recorded.
            self.window.index_copy_(0, self.slot, torch.stack(row).double().view(1, 2))
        else:
            torch.stack(row, out=self.window[self._count])

    @torch.no_grad()
    def _end_window(self) -> None:
        window = self.window
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(window)
            window.div_(dist.get_world_size())
        statistic = VARIANTS[self.variant](window)
        if self.rule == "authors":
            # Weights are constant within a window, so that its weighted losses need not be kept:
            # both statistics are proportional to them.
            statistic = statistic * self.weight
        s_cls, s_reg = statistic.unbind()
        ratio = s_reg / s_cls  # = 1 - (S_cls - S_reg) / S_cls; no number if a loss was none
        if self.rule == "authors":
            changes, weight = ratio < 1, ratio
        else:
            changes, weight = ratio < torch.inf, ratio.clamp(self.min_weight, 1)
        if self.freeze_after:
            changes &= self.window_start + self.interval <= self.freeze_after
        w_cls = self.weight[0]
        torch.where(changes, weight, w_cls, out=w_cls)

        # The variance of a row with a loss that is not finite is NaN, the greatest of all; the
        # index is the first one's.
        greatest, row = window.var(1).max(0)
        nonfinite = greatest.isnan()
        torch.where(nonfinite, self.statistic, statistic, out=self.statistic)
        is_first = nonfinite & (self.first_nonfinite < 0)
        first = self.first_nonfinite
        torch.where(is_first, self.window_start + row, first, out=first)
        self.window_start.add_(self.interval)
        self.slot.zero_()

    def step(self) -> None:
        if not self.observing:
            return
        self._count += 1
        if self._count == self.interval:
            self._count = 0
            self._end_window()
        else:
            self.slot.add_(1)

    def reset(self) -> bool:
        moved = bool(self.window_start + self.slot > 0)
        for name, value in self._initial_state().items():
            getattr(self, name).copy_(value)
        self._count = 0
        return moved

    def _load_from_state_dict(self, state_dict, prefix, *args):
        """Takes the window, its counters and its length as one unit, or begins a new window."""
        window, slot, start = (state_dict.get(prefix + name) for name in self._WINDOW)
        state = self._initial_state()
        pair = f"{self.cls_key} and {self.reg_key}"
        if slot is None or start is None:
            logger.info(f"The checkpoint holds no ALWA window of {pair}: a new one begins.")
        elif window is None or window.shape != self.window.shape:
            # Detectron2's checkpointer has dropped a window of another shape by now.
            logger.info(
                f"The checkpoint's ALWA window of {pair} is not one of MODEL.ALWA.INTERVAL = "
                f"{self.interval} iterations: a new one begins."
            )
            state["window_start"] = start + slot[0]
        elif not 0 <= int(slot) < self.interval:
            logger.info(f"The checkpoint's ALWA window of {pair} is broken: a new one begins.")
        else:
            state.update(window=window, slot=slot, window_start=start)
        for name, value in state.items():
            if name in self._WINDOW:
                state_dict[prefix + name] = value
            else:
                state_dict.setdefault(prefix + name, value)
        weight = state_dict[prefix + "weight"]
        if not ((weight >= 0) & (weight <= 1)).all():
            logger.info(f"The checkpoint's weights of {pair} are broken: 1 and 1 are taken.")
            state_dict[prefix + "weight"] = state["weight"]
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._count = int(self.slot)
