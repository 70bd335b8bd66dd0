"""Checkpoints that are read without running code from them, and refused where they do not fit."""

import contextlib
import logging
import os
import re
import zipfile

import torch

from .._show import counted
from ..detectron2_private import OpenCheckpointer, optimizer_of, saved_optimizer
from ..errors import UserError, explain
from ..weighting import LossWeighter, begins_anew
from ..weighting.method_id import METHOD_ID

logger = logging.getLogger(__name__)

NAMED = 3  # of the tensors that do not fit, in the message


class _WholeFiles:
    """A path manager whose local files are written whole, or stay as they were."""

    def __init__(self, manager):
        self._manager = manager

    def __getattr__(self, name):
        return getattr(self._manager, name)

    @contextlib.contextmanager
    def open(self, path, mode="r", **kwargs):
        is_written = "w" in mode and "://" not in path
        place = f"{path}.part" if is_written else path
        try:
            with self._manager.open(place, mode, **kwargs) as file:
                yield file
            if is_written:
                os.replace(place, path)
        except BaseException:
            if is_written and os.path.exists(place):
                os.remove(place)
            raise


class Checkpointer(OpenCheckpointer):
    """
    Detectron2's checkpointer, which writes files whole or not at all, and refuses files that cannot
    be read, and on resuming those that another model or no training wrote.

    `.pth` files are read with `weights_only`. Detectron2's `.pkl` files are pickles, which run what
    is in them: load them from sources that you trust.
    """

    _purpose = ""  # what all weights of the file have to fit for, while that is so

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.path_manager = _WholeFiles(self.path_manager)

    def load(self, path, checkpointables=None):
        """
        Args:
            path: file, or "" for none
            checkpointables: names of what to load beside the model; None is resuming: all, and all
                must be there

        Raises:
            UserError: a file that is not there, is no checkpoint, or does not fit on resuming
        """
        self._resumes = checkpointables is None
        self._path = path
        check_is_there(path)
        try:
            return super().load(path, checkpointables)
        except OSError as error:  # a download's, too
            remedy = "get the file where it can be had, and give its path here"
            raise UserError(f"MODEL.WEIGHTS: could not get {path} ({error}); {remedy}") from error
        except ValueError as error:
            if "parameter group" not in str(error):  # what PyTorch's optimizers say
                raise
            raise self._other_optimizer(str(error)) from error

    def load_all_weights(self, path: str) -> None:
        """
        Loads a model to be evaluated, which all of its weights must be there for.

        Raises:
            UserError: no file, one that is no checkpoint, or one that does not fit
        """
        check_weights_given(path)
        self._purpose = "to evaluate"
        try:
            self.load(path, checkpointables=[])
        finally:
            self._purpose = ""

    def read_file(self, path):
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict):
            raise UserError(f"{path}: expected a dictionary, got {type(loaded).__name__}")
        return loaded

    def refuse_file(self, path, error):
        raise UserError(f"{path}: expected a checkpoint, got {_kind_of(path, error)}") from error

    def check_content(self, path, checkpoint):
        if not isinstance(checkpoint["model"], dict):
            kind = type(checkpoint["model"]).__name__
            raise UserError(f"{path}: expected a model's state, a dictionary, got {kind}")
        missing = [key for key in self.checkpointables if not checkpoint.get(key)]
        if self._resumes and missing:
            raise UserError(
                f"{path}: expected a training's checkpoint to resume from, got one without "
                f"{', '.join(missing)}; as MODEL.WEIGHTS it can start a training without --resume"
            )

        if self._resumes:
            self._check_optimizer(saved_optimizer(checkpoint))
        for prefix, weighter in self.model.named_modules():
            if self._resumes and isinstance(weighter, LossWeighter):
                self._check_learnt(weighter, f"{prefix}.", checkpoint["model"])

    def _check_optimizer(self, state):
        """PyTorch's optimizers take one another's states, and stumble over them later."""
        own = optimizer_of(self.checkpointables.get("trainer"))
        groups = state.get("param_groups")
        if own is None or not groups:
            return
        kinds = ["AdamW" if "betas" in x[0] else "SGD" for x in (groups, own.param_groups)]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"SOLVER.OPTIMIZER: expected {kinds[0]}, of which {self._path} has the state, got "
                f"{kinds[1]}; as MODEL.WEIGHTS the file can start a training without --resume"
            )

    def _check_learnt(self, weighter, prefix, state):
        """Learnt weights have a state in the optimizer, which cannot begin anew by itself."""
        saved = int(state.get(prefix + METHOD_ID, weighter.method_id))  # old ones have none
        names = [prefix + name for name, _ in weighter.named_parameters()]
        if names and (saved != weighter.method_id or not all(name in state for name in names)):
            raise self._other_optimizer(f"{type(weighter).__name__} learns weights of its own")

    def _other_optimizer(self, reason):
        return UserError(
            f"{self._path}: expected the state of this training's optimizer, got another "
            f"({reason}). A training cannot go on where layers are frozen that were not, or the "
            "other way round, nor where MODEL.LOSS_WEIGHTER.NAME changes from or to Uncertainty, "
            "or its LOSSES or UNCERTAINTY.REVISED do. As MODEL.WEIGHTS the file can start a "
            "training without --resume"
        )

    def check_loaded(self, incompatible):
        missing = incompatible.missing_keys
        for key in [key for key in missing if begins_anew(self.model, key)]:
            missing.remove(key)
        wrong = [key for key, *_ in incompatible.incorrect_shapes]  # which are missing as well
        wrong = [key for key in wrong if not begins_anew(self.model, key)]
        foreign = [*dict.fromkeys([*missing, *wrong])]
        purpose = "to resume from" if self._resumes else self._purpose
        if purpose and foreign:
            raise UserError(
                f"{self._path}: expected a checkpoint of this model {purpose}; missing or of "
                f"another shape: {counted(len(foreign), 'tensors')}, such as "
                f"{', '.join(foreign[:NAMED])}"
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


def check_is_there(path: str) -> None:
    """Refuses a path of no file; of addresses, and of no path at all, it cannot be said."""
    if path and "://" not in path and not os.path.isfile(path.partition("?")[0]):
        raise UserError(f"MODEL.WEIGHTS: expected a checkpoint, got {path}, which is no file")


def check_weights_given(path: str) -> None:
    """Refuses an evaluation without a checkpoint, before anything is built for it."""
    if not path:
        raise UserError("MODEL.WEIGHTS: expected the checkpoint of a trained model, got ''")
    check_is_there(path)


def _kind_of(path: str, error: Exception) -> str:
    """What a file is that could not be loaded as a checkpoint. PyTorch's own text is long, and
    recommends to run what is in the file."""
    with open(path, "rb") as file:
        begin = file.read(16)
    if not begin:
        return "an empty file"
    if not begin.startswith((b"PK", b"\x80")):  # a zip archive, a pickle
        return f"a file that begins with {begin!r}"
    if begin.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "one that is cut off; copy the file again"
    if held := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"one that holds {held[1]}, which is code to be run; save tensors, numbers and texts "
            'alone, such as {"model": model.state_dict()}'
        )
    detail = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    reason = detail[1] if detail else explain(error).partition(". ")[0]
    return f"one that cannot be read ({reason})"
