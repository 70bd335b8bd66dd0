"""Adaptive Loss Weight Adjustment (arXiv 2103.09488)."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .alwa_options import check_options
from .alwa_statistics import VARIANTS, detrended
from .base import LossWeighter, Stats
from .constant import Constant
from .processes import Group, average
from .registry import LOSS_WEIGHTER_REGISTRY

logger = logging.getLogger(__name__)

MIN_WEIGHT = 0.01  # the default
# Names of buffers in checkpoints that were written before they got their present names.
OLD_NAMES = {"weight": "weight_vector", "statistic": "statistic_vector"}


def _is_capturing(x: Tensor) -> bool:
    """Whether a CUDA graph is being recorded."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


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

    It is a method for pairs: what it lowers is the first loss, and what it compares it to is the
    second. Other numbers of losses are refused. Its options cannot be changed later.
    """

    _WINDOW = ("window", "slot", "window_start")  # loaded as one unit
    rank_buffers = ("window",)
    pairs_only = True
    config_keys = tuple(
        f"MODEL.ALWA.{key}"
        for key in "VARIANT RULE INTERVAL MIN_WEIGHT FREEZE_AFTER DETREND SMOOTHING".split()
    )
    variant, rule, interval = Constant[str](), Constant[str](), Constant[int]()
    min_weight, freeze_after = Constant[float](), Constant[int]()
    detrend, smoothing = Constant[bool](), Constant[float]()
    window: Tensor
    slot: Tensor
    window_start: Tensor
    weight_vector: Tensor
    statistic_vector: Tensor
    first_nonfinite: Tensor

    def __init__(
        self,
        cls_key: str = "loss_cls",
        reg_key: str = "loss_box_reg",
        *others: str,
        variant: str = "ALWA_2",
        rule: str = "balance",
        interval: int = 100,
        min_weight: float = MIN_WEIGHT,
        freeze_after: int = 0,
        detrend: bool = False,
        smoothing: float = 0.0,
        process_group: Group = None,
    ) -> None:
        """
        Args:
            cls_key, reg_key: names of the classification and the box-regression loss
            others: none; a third loss is refused
            variant: "ALWA_1" (S = mean + standard deviation) or "ALWA_2" (standard deviation)
            rule: "authors" or "balance"
            interval: length C of a window in iterations, 2 to 1 000 000
            min_weight: floor of the classification weight under "balance", in (0, 1]
            freeze_after: iterations from which on the weights stay as they are; 0 for never
            detrend: whether S is of what the window's straight line leaves over: a loss that falls
                evenly has no spread then
            smoothing: how much of the old weight a new one keeps, in [0, 1)
            process_group: see :class:`LossWeighter`

        Raises:
            ValueError: another type or value of an argument
        """
        super().__init__(cls_key, reg_key, *others, process_group=process_group)
        if others:
            raise ValueError(
                "ALWA (MODEL.LOSS_WEIGHTER.NAME): expected two losses, since its rule compares a "
                f"classification with a box loss, got {len(self.keys)}: {', '.join(self.keys)}. "
                'MODEL.LOSS_WEIGHTER.LOSSES "pairs" gives it pairs.'
            )
        check_options(
            variant=variant, rule=rule, interval=interval, min_weight=min_weight,
            freeze_after=freeze_after, detrend=detrend, smoothing=smoothing,
        )  # fmt: skip
        self.variant = variant
        self.rule = rule
        self.interval = int(interval)
        self.min_weight = min_weight
        self.freeze_after = int(freeze_after)
        self.detrend = detrend
        self.smoothing = smoothing
        for name, value in self._initial_state().items():
            self.register_buffer(name, value)
        self._count = 0  # host copy of slot

    def _initial_state(self) -> dict[str, Tensor]:
        return {
            # Unweighted (cls, reg); rows from `slot` on are of the window before.
            "window": torch.zeros(self.interval, 2, dtype=torch.float64),
            "slot": torch.zeros(1, dtype=torch.int64),  # row of the window to be written next
            "window_start": torch.zeros((), dtype=torch.int64),  # iteration of the window's row 0
            "weight_vector": torch.ones(2, dtype=torch.float64),  # in force: (cls, reg)
            # Of the last window: (cls, reg).
            "statistic_vector": torch.full((2,), torch.nan, dtype=torch.float64),
            # The first iteration with a loss that was not finite; -1: none yet.
            "first_nonfinite": torch.full((), -1, dtype=torch.int64),
        }

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        keys = cfg.MODEL.ALWA
        return {
            "variant": keys.VARIANT,
            "rule": keys.RULE,
            "interval": keys.INTERVAL,
            "min_weight": keys.MIN_WEIGHT,
            "freeze_after": keys.FREEZE_AFTER,
            "detrend": keys.DETREND,
            "smoothing": keys.SMOOTHING,
        }

    def settings(self) -> str:
        text = f"variant={self.variant}, rule={self.rule}, interval={self.interval}"
        text += f", min_weight={self.min_weight:g}" if self.min_weight != MIN_WEIGHT else ""
        text += f", freeze_after={self.freeze_after}" if self.freeze_after else ""
        text += ", detrend" if self.detrend else ""
        return text + (f", smoothing={self.smoothing:g}" if self.smoothing else "")

    def without_effect(self, max_iter: int) -> list[str]:
        said = []
        if self.rule == "authors" and self.min_weight != MIN_WEIGHT:
            said.append("MODEL.ALWA.MIN_WEIGHT: RULE authors has no floor")
        if self.interval >= max_iter:
            said.append(
                f"ALWA: no window of INTERVAL {self.interval} iterations ends before the last of "
                f"SOLVER.MAX_ITER {max_iter}, and no weight changes"
            )
        if 0 < self.freeze_after < self.interval:
            said.append(
                f"ALWA: FREEZE_AFTER {self.freeze_after} comes before the first window's end at "
                f"INTERVAL {self.interval}, and no weight changes"
            )
        return said

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.keys, self.weight_vector.clone().unbind(), strict=True))

    @property
    def statistics(self) -> dict[str, Tensor]:
        """S of the last full window: NaN before the first."""
        return dict(zip(self.keys, self.statistic_vector.clone().unbind(), strict=True))

    def observe(self, losses: Mapping[str, Tensor], stats: Stats = None) -> None:
        super().observe(losses, stats)
        if not self.observing:
            return
        seen = self._seen()
        row = tuple(seen[key] for key in self.keys)
        if torch.compiler.is_compiling() or _is_capturing(self.window):
            # What is compiled or replayed later cannot know the slot when it is recorded.
            self.window.index_copy_(0, self.slot, torch.stack(row).double().view(1, 2))
        else:
            torch.stack(row, out=self.window[self._count])

    @torch.no_grad()
    def _end_window(self) -> None:
        window = self.window
        average(window, self.process_group)
        statistic = VARIANTS[self.variant](detrended(window) if self.detrend else window)
        if self.rule == "authors":
            # Weights are constant within a window, so that its weighted losses need not be kept:
            # both statistics are proportional to them.
            statistic = statistic * self.weight_vector
        s_cls, s_reg = statistic.unbind()
        ratio = s_reg / s_cls  # = 1 - (S_cls - S_reg) / S_cls; no number if a loss was none
        if self.rule == "authors":
            changes, weight = ratio < 1, ratio
        else:
            changes, weight = ratio < torch.inf, ratio.clamp(self.min_weight, 1)
        if self.freeze_after:
            changes &= self.window_start + self.interval <= self.freeze_after
        w_cls = self.weight_vector[0]
        if self.smoothing:
            weight = torch.lerp(weight, w_cls, self.smoothing)
        torch.where(changes, weight, w_cls, out=w_cls)

        # The variance of a row with a loss that is not finite is NaN, the greatest of all; the
        # index is the first one's.
        greatest, row = window.var(1).max(0)
        nonfinite = greatest.isnan()
        last = self.statistic_vector
        torch.where(nonfinite, last, statistic, out=last)
        is_first = nonfinite & (self.first_nonfinite < 0)
        first = self.first_nonfinite
        torch.where(is_first, self.window_start + row, first, out=first)
        self.window_start.add_(self.interval)
        self.slot.zero_()

    def step(self) -> None:
        super().step()
        if not self.observing:
            return
        self._count += 1
        if self._count == self.interval:
            self._count = 0
            self._end_window()
        else:
            self.slot.add_(1)

    def reset(self) -> bool:
        super().reset()
        moved = bool(self.window_start + self.slot > 0)
        for name, value in self._initial_state().items():
            getattr(self, name).copy_(value)
        self._count = 0
        return moved

    def shared_state(self) -> dict[str, Tensor]:
        # DistributedDataParallel copies the buffers of the first process, but not what it counts.
        return {"count": torch.full_like(self.slot, self._count), **super().shared_state()}

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, metadata: Any, strict: bool,
        missing: list[str], unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        """Takes the window, its counters and its length as one unit, or begins a new window."""
        is_other = self._leave_out_others(state_dict, prefix)
        for old, new in OLD_NAMES.items():
            if prefix + old in state_dict:
                state_dict.setdefault(prefix + new, state_dict.pop(prefix + old))
        fresh = self._initial_state()
        missing.extend(prefix + name for name in fresh if prefix + name not in state_dict)
        window, slot, start = (state_dict.get(prefix + name) for name in self._WINDOW)
        pair = f"{self.cls_key} and {self.reg_key}"
        if is_other:
            pass  # which was said
        elif slot is None or start is None:
            logger.info(f"The checkpoint holds no ALWA window of {pair}: a new one begins.")
        elif window is None or window.shape != self.window.shape:
            # Detectron2's checkpointer has dropped a window of another shape by now.
            logger.info(
                f"The checkpoint's ALWA window of {pair} is not one of MODEL.ALWA.INTERVAL = "
                f"{self.interval} iterations: a new one begins."
            )
            fresh["window_start"] = start + slot[0]
        elif not 0 <= int(slot) < self.interval:
            logger.info(f"The checkpoint's ALWA window of {pair} is broken: a new one begins.")
        else:
            fresh.update(window=window, slot=slot, window_start=start)
        for name, value in fresh.items():
            if name in self._WINDOW:
                state_dict[prefix + name] = value
            else:
                state_dict.setdefault(prefix + name, value)
        weight = state_dict[prefix + "weight_vector"]
        if not ((weight >= 0) & (weight <= 1)).all():
            logger.info(f"The checkpoint's weights of {pair} are broken: 1 and 1 are taken.")
            state_dict[prefix + "weight_vector"] = fresh["weight_vector"]
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing, unexpected, errors
        )
        self._count = int(self.slot)
