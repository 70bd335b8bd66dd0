"""A run's folder: one training's, which no other one and no evaluation writes into."""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import UserError
from .checkpoint import check_is_there
from .main_process import on_main_process

logger = logging.getLogger(__name__)

# What a run writes, and the pictures drawn of it; nothing else is ever removed from its folder.
WRITTEN = (
    *("metrics.json", "config.yaml", "last_checkpoint", "model_*.pth", "events.out.tfevents.*"),
    "*.part",  # checkpoints that a run was stopped at
    *("log.txt*", "inference", "inference_TTA"),
    *("losses.png", "scales.png", "grid.png", "detections.png"),
)
EVALUATION = "inference"  # the subfolder of evaluations, as Detectron2 calls it
ASIDE = ".overwritten"  # the subfolder where a training waits until the one in its place begins


class NothingToTrain(Exception):
    """The training that `--resume` asks for has reached its last iteration."""


def holds_training(folder: Path) -> bool:
    """Whether a training has begun in this folder: it has logged iterations or saved weights."""
    metrics = folder / "metrics.json"
    return (folder / "last_checkpoint").exists() or (
        metrics.exists() and metrics.stat().st_size > 0
    )


def holds_run(folder: Path) -> bool:
    """Whether a run has been in this folder, if only up to writing its config."""
    config = folder / "config.yaml"
    is_ours = config.is_file() and "LOSS_WEIGHTER:" in config.read_text("utf-8", "replace")
    return is_ours or holds_training(folder)


def _clear(folder: Path) -> None:
    """Removes what a run has written."""
    for path in _written(folder):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _written(folder: Path) -> list[Path]:
    return [path for pattern in WRITTEN for path in folder.glob(pattern)]


def prepare(cfg: CfgNode, resume: bool, needed: Iterable[str] = ()) -> None:
    """
    Makes sure that a training may write into `OUTPUT_DIR`. All processes call it, inside
    `keeps_training`.

    Args:
        needed: files that the training reads, which must not be removed for it

    Raises:
        UserError: the folder holds another training, or none that can be resumed
        NothingToTrain: the training to resume has been done
    """
    on_main_process(lambda: _prepare(cfg, resume, needed))


def _prepare(cfg: CfgNode, resume: bool, needed: Iterable[str]) -> None:
    folder = Path(cfg.OUTPUT_DIR)
    if resume:
        checkpoint = last_checkpoint(folder)
        done = _iterations_done(checkpoint) if checkpoint else 0
        evaluated = not cfg.DATASETS.TEST or _is_evaluated(folder, done)
        if done >= cfg.SOLVER.MAX_ITER and evaluated:
            raise NothingToTrain(
                f"{folder}: nothing left to train, {done} of SOLVER.MAX_ITER {cfg.SOLVER.MAX_ITER} "
                "iterations are done"
            )
        return
    if not holds_training(folder):
        return
    if not cfg.OVERWRITE:
        raise UserError(
            f"OUTPUT_DIR: {folder} holds another training; go on with it (--resume), choose "
            "another OUTPUT_DIR, or remove what it wrote (OVERWRITE True)"
        )
    check_is_there(cfg.MODEL.WEIGHTS)
    for path in map(Path, filter(None, needed)):
        if path.is_file() and path.resolve() in {old.resolve() for old in _written(folder)}:
            raise UserError(
                f"OVERWRITE: {path}, which this training needs, is of the training in {folder}, "
                "which would be removed; copy it, or choose another OUTPUT_DIR"
            )
    logger.warning(f"OVERWRITE: the training in {folder} is removed as soon as this one can begin")
    _set_aside(folder)


def _set_aside(folder: Path) -> None:
    aside = folder / ASIDE
    if aside.exists():  # of a training that was killed as it began
        shutil.rmtree(aside)
    aside.mkdir()
    for path in _written(folder):
        path.rename(aside / path.name)


def _put_back(folder: Path) -> None:
    """Undoes :func:`_set_aside`; what the start that set it aside has written is removed."""
    aside = folder / ASIDE
    _clear(folder)
    for old in aside.iterdir():
        old.rename(folder / old.name)
    aside.rmdir()


def _is_evaluated(folder: Path, iterations: int) -> bool:
    """Whether metrics.json has the results after so many iterations."""
    metrics = folder / "metrics.json"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    for line in reversed(lines):
        try:
            row = json.loads(line)
            if int(row["iteration"]) < iterations - 1:
                return False
            if any(key.rpartition("/")[2].startswith("AP") for key in row):
                return True
        except (ValueError, KeyError, TypeError):  # a line that was cut off
            continue
    return False


@contextlib.contextmanager
def keeps_training(folder: Path) -> Iterator[None]:
    """The training of a folder as it was, where the one that begins in here cannot: its
    config.yaml, and all of it where OVERWRITE has set it aside."""
    if not comm.is_main_process():
        yield
        return
    path, aside = folder / "config.yaml", folder / ASIDE
    if aside.is_dir() and not holds_training(folder):
        _put_back(folder)  # a start with OVERWRITE was killed before its training could begin
    before = path.read_bytes() if path.is_file() else None
    try:
        yield
    except BaseException:
        if aside.is_dir():
            _put_back(folder)
        elif before is not None:
            path.write_bytes(before)
        raise
    if aside.is_dir():
        shutil.rmtree(aside)


def last_checkpoint(folder: Path) -> Path | None:
    """The file that `last_checkpoint` names; None if there is no such note.

    Raises:
        UserError: the note names no file
    """
    note = folder / "last_checkpoint"
    if not note.exists():
        return None
    name = note.read_text(encoding="utf-8", errors="replace").strip()
    if not name or not (folder / name).is_file():
        raise UserError(
            f"{note}: expected the name of a checkpoint in its folder, got {name!r}; write the "
            "name of the newest model_*.pth into it, or remove it to begin anew"
        )
    return folder / name


def _iterations_done(checkpoint: Path) -> int:
    """Iterations that a checkpoint's training had done; 0 for a file that is something else."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(content["iteration"]) + 1
    except Exception:  # of many types; loading it for good says what is wrong
        return 0
