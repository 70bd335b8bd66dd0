"""What each process of a training has of its own, in its checkpoints."""

import logging
import random

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from .._show import counted
from ..detectron2_private import start_data_loader

logger = logging.getLogger(__name__)


class RankState(HookBase):
    """
    Saves with each checkpoint, and restores on resuming, each process's random state and its own
    buffers (the loss weighters' windows, a dense detector's normaliser).

    Detectron2's checkpoints hold the main process's model alone, and no random state, by which
    two-stage models sample anchors and proposals. The hook belongs on every process, before
    `PeriodicCheckpointer`.
    """

    def __init__(self, model: torch.nn.Module, period: int):
        """
        Args:
            model: not the `DistributedDataParallel` around it
            period: iterations from one checkpoint to the next
        """
        self._model = model
        self._device = next(model.parameters()).device
        self._period = period
        self._gathered = {}  # iteration -> states of all processes, on the main one
        self._loaded = None

    def after_step(self):
        is_last = self.trainer.iter >= self.trainer.max_iter - 1
        is_due = (self.trainer.iter + 1) % self._period == 0 or is_last
        if is_due and comm.get_world_size() > 1:
            self._gathered = {self.trainer.iter: comm.gather(self._own())}

    def state_dict(self):
        if comm.get_world_size() == 1:
            return {"ranks": [self._own()]}
        # The other processes take no part in a checkpoint that is not the period's.
        ranks = self._gathered.get(self.trainer.iter)
        return {"ranks": ranks} if ranks else {}

    def load_state_dict(self, state_dict):
        self._loaded = state_dict["ranks"]

    def before_train(self):
        # A new iterator draws a random number, which an uninterrupted run has done long ago.
        start_data_loader(self.trainer)
        ranks, self._loaded = self._loaded or [], None
        if len(ranks) == comm.get_world_size():
            own = ranks[comm.get_rank()]
            self._restore(own)
            self._restore_buffers(own["buffers"], ranks[0]["buffers"])
        elif self.trainer.start_iter > 0:
            logger.info(
                f"The checkpoint has the state of {counted(len(ranks), 'processes')}, not of "
                f"{comm.get_world_size()}: random states begin anew, windows and normaliser are "
                "the main process's."
            )

    def _own(self) -> dict:
        """Only what `torch.load` reads with `weights_only`."""
        name, keys, *rest = np.random.get_state()
        state = {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
            "torch": torch.get_rng_state(),
            "buffers": {name: buffer.cpu() for name, buffer in self._buffers()},
        }
        if self._device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        return state

    def _restore(self, state: dict) -> None:
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        if self._device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._device)

    def _restore_buffers(self, saved: dict, of_main: dict) -> None:
        """Those that the model took from the checkpoint, which has the main process's; what began
        anew, such as the window of another method, does so on all processes."""
        for name, buffer in self._buffers():
            taken = name in of_main and _is_equal(of_main[name], buffer.cpu())
            if taken and saved[name].shape == buffer.shape:
                buffer.copy_(saved[name])

    def _buffers(self):
        for prefix, module in self._model.named_modules():
            for name in getattr(module, "rank_buffers", ()):
                yield f"{prefix}.{name}".lstrip("."), getattr(module, name)


def _is_equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    """Whether shapes and values are, NaN where NaN is."""
    return x.shape == y.shape and torch.allclose(x, y.to(x), rtol=0, atol=0, equal_nan=True)
