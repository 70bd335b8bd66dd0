"""Checkpoints that are read without running code from them, and refused where they do not fit."""

import logging

import torch

from ..detectron2_private import OpenCheckpointer
from ..weighting import begins_anew

logger = logging.getLogger(__name__)


class Checkpointer(OpenCheckpointer):
    """
    Detectron2's checkpointer, which refuses files that cannot be read, and on resuming those that
    another model or no training wrote.

    `.pth` files are read with `weights_only`. Detectron2's `.pkl` files are pickles, which run what
    is in them: load them from sources that you trust.
    """

    def load(self, path, checkpointables=None):
        """
        Args:
            path: file, or "" for none
            checkpointables: names of what to load beside the model; None is resuming: all, and all
                must be there

        Raises:
            ValueError: a file that is no checkpoint, or does not fit on resuming
        """
        self._resumed_path = path if checkpointables is None else None
        return super().load(path, checkpointables)

    def read_file(self, path):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of many types, for a file that may hold anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{path}: expected a checkpoint, could not read it ({reason})"
            ) from error
        if not isinstance(loaded, dict):
            raise ValueError(f"{path}: expected a dictionary, got {type(loaded).__name__}")
        return loaded

    def check_content(self, path, checkpoint):
        if not isinstance(checkpoint["model"], dict):
            kind = type(checkpoint["model"]).__name__
            raise ValueError(f"{path}: expected a model's state, a dictionary, got {kind}")
        missing = [key for key in self.checkpointables if not checkpoint.get(key)]
        if self._resumed_path and missing:
            raise ValueError(
                f"{path}: expected a training's checkpoint to resume from, got one without "
                f"{', '.join(missing)}; as MODEL.WEIGHTS it can start a training without --resume"
            )

    def check_loaded(self, incompatible):
        missing = incompatible.missing_keys
        for key in [key for key in missing if begins_anew(self.model, key)]:
            missing.remove(key)
        wrong = [key for key, *_ in incompatible.incorrect_shapes]
        foreign = [*missing, *(key for key in wrong if not begins_anew(self.model, key))]
        if self._resumed_path and foreign:
            raise ValueError(
                f"{self._resumed_path}: expected a checkpoint of this model to resume from; "
                f"{len(foreign)} tensors are missing or of another shape, such as {foreign[0]}"
            )
        self._drop_weighters(incompatible.unexpected_keys)

    @staticmethod
    def _drop_weighters(unexpected_keys: list[str]) -> None:
        """Takes what this project's models call their weighters out of the list, in one line."""
        attributes = ("loss_weighter.", "loss_weighters.")
        keys = [key for key in unexpected_keys if key.startswith(attributes)]
        for key in keys:
            unexpected_keys.remove(key)
        names = sorted({key.rpartition(".")[0] for key in keys})
        if names:
            logger.info(f"The checkpoint's {', '.join(names)}, not in this model, is left out.")
