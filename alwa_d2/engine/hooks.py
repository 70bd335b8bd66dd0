"""Hooks of the trainer."""

import logging
import statistics

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..weighting import Fixed, Schedule, weighters_of
from .optimizer import wrong_groups
from .weighting_line import log_weighting

logger = logging.getLogger(__name__)


class LossWeightLogger(HookBase):
    """
    Puts losses, weights and statistics of every loss weighter in the model into the event storage.

    The device is read when the writers are about to write, and not in between, so that the hook
    belongs before `PeriodicWriter` and shares its period. For a loss "loss_x" the scalars are

    - unweighted/loss_x: median since the last time, as the writers smooth the weighted "loss_x"
    - alwa/weight_x: weight in force from the next iteration on; of methods whose weights follow
      from the losses of the same iteration, its last weight
    - alwa/stat_x: statistic that moved the weight last, once there is one
    - per_anchor/x_mean, per_anchor/x_std: of the last batch's anchors

    and the anchors an image that a part of the model counts, its `anchor_counts()`:
    "num_pos_anchors", "rpn/num_pos_anchors" and "rpn/num_neg_anchors", of the last batch. With
    several processes, each of which needs the hook, these are means, as Detectron2's "loss_x".

    At the start, one line says what weighs which losses, and which settings have no effect, and
    another names learnt weights that have no group of their own in the optimizer. Once each, the
    log names a weighter that saw a loss that was not finite, or whose weight came down to 0.
    """

    def __init__(self, model: torch.nn.Module, period: int = 20):
        """
        Args:
            model: holds the weighters; not the `DistributedDataParallel` around it
            period: iterations from one writing to the next
        """
        self._period = period
        self._model = model
        self._weighters = weighters_of(model)
        self._counters = [m for m in model.modules() if hasattr(m, "anchor_counts")]
        self._losses = {}  # loss key -> 0-dim device tensors since the last writing
        self._warned = set()  # messages that have been logged

    def before_train(self):
        if comm.is_main_process():
            log_weighting(getattr(self.trainer, "cfg", None), self._model)
            if optimizer := getattr(self.trainer, "optimizer", None):
                for line in wrong_groups(optimizer, self._model):
                    logger.warning(line)

    def after_step(self):
        for weighter in self._weighters:
            if weighter.observed is not None:
                for key, loss in weighter.observed[0].items():
                    self._losses.setdefault(key, []).append(loss)
        is_last = self.trainer.iter == self.trainer.max_iter - 1
        if (self.trainer.iter + 1) % self._period == 0 or is_last:
            self._put()

    def _put(self):
        scalars = {
            f"unweighted/{key}": statistics.median(torch.stack(losses).tolist())
            for key, losses in self._losses.items()
        }
        self._losses = {}
        for weighter in self._weighters:
            own = self._scalars(weighter)
            self._report(weighter, own)
            scalars.update(own)
        for counter in self._counters:
            scalars.update(_read(counter.anchor_counts()))
        everyones = comm.gather(scalars)  # [] on all but the main process
        for name in everyones[0] if everyones else ():
            mean = statistics.fmean(own[name] for own in everyones if name in own)
            self.trainer.storage.put_scalar(name, mean, smoothing_hint=False)

    @staticmethod
    def _scalars(weighter):
        """Names and values of what one weighter has to say, in one read of the device."""
        named = {f"alwa/weight_{_short(key)}": w for key, w in weighter.weights.items()}
        named |= {f"alwa/stat_{_short(key)}": s for key, s in weighter.statistics.items()}
        stats = weighter.observed[1] if weighter.observed else None
        for key, value in (stats or {}).items():
            named[f"per_anchor/{_short(key)}_mean"] = value.mean
            named[f"per_anchor/{_short(key)}_std"] = value.std
        # A statistic is NaN until the first window has ended.
        return {name: value for name, value in _read(named).items() if value == value}

    def _report(self, weighter, scalars):
        losses = " or ".join(weighter.keys)
        first = int(getattr(weighter, "first_nonfinite", -1))
        if first >= 0:
            self._warn_once(
                f"{losses} was not finite for the first time in observed iteration {first}; the "
                "window it fell into changed no weight."
            )
        if isinstance(weighter, (Fixed, Schedule)):
            return  # a user may set a weight to 0
        for key in weighter.keys:
            if scalars.get(f"alwa/weight_{_short(key)}") == 0:
                self._warn_once(f"The weight of {key} is 0: with this weight it trains nothing.")

    def _warn_once(self, message):
        if message not in self._warned and comm.is_main_process():
            self._warned.add(message)
            logger.warning(message)


class EvaluationWriter(HookBase):
    """
    Writes what an evaluation during training has found, whatever the writers' own period.

    They keep the newest value of each scalar, so that of two evaluations in one period the first
    would be lost. The hook belongs after `EvalHook`, in the main process.
    """

    def __init__(self, writers, period: int):
        """
        Args:
            writers: Detectron2's `EventWriter` objects
            period: iterations from one evaluation to the next, TEST.EVAL_PERIOD; 0 for none
        """
        self._event_writers, self._every = writers, period

    def after_step(self):
        if self._every > 0 and (self.trainer.iter + 1) % self._every == 0:
            for writer in self._event_writers:
                writer.write()


def _read(tensors):
    """Numbers in place of 0-dim tensors, in one read of the device."""
    if not tensors:
        return {}
    values = torch.stack([value.double() for value in tensors.values()]).tolist()
    return dict(zip(tensors, values, strict=True))


def _short(key: str) -> str:
    return key.removeprefix("loss_")
