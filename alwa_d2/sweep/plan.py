"""The runs of a sweep: their settings, the hash of these, and the folder of each."""

import hashlib
import re
from pathlib import Path

from ..config import dump_for_hash
from ..errors import UserError, user_errors
from .record import ended_well
from .sweep import Cell, Run, Sweep

HASH_DIGITS = 12  # hexadecimal: 48 bits, so that a million runs hardly share one
NAME_LENGTH = 80  # bytes of a folder's readable part; file systems end at 255 for the whole


def make_runs(sweep: Sweep, check: bool = True) -> list[Run]:
    """
    All runs, cell by cell.

    Args:
        sweep: what is run
        check: whether every config is also checked as `alwa-d2 train` does it, its data included

    Raises:
        UserError: a config that cannot be merged, or does not pass the check, or two runs with the
            same settings
    """
    runs: dict[str, Run] = {}
    for cell in sweep.cells:
        try:
            if check:
                _check(sweep, cell)
            hashes = hash_settings(sweep, cell)
        except UserError as error:
            raise UserError(f"{sweep.path}: the cell '{cell.name}': {error}") from error
        for seed, digest in zip(sweep.seeds, hashes):
            run = Run(cell, seed, digest, _folder(sweep, cell, seed, digest))
            if digest in runs:
                both = f"'{runs[digest].name}' and '{run.name}'"
                raise UserError(f"{sweep.path}: {both} are the same settings")
            runs[digest] = run
    return list(runs.values())


def _check(sweep: Sweep, cell: Cell) -> None:
    """Refuses what `alwa-d2 train` would refuse."""
    from ..data.register import registered_for_now
    from ..engine.defaults import setup_cfg
    from ..weighting import weighter_class

    with registered_for_now():  # another cell may have other data of the same name
        cfg = setup_cfg(str(sweep.config), _opts(cell))
    with user_errors():
        weighter_class(cfg)


def hash_settings(sweep: Sweep, cell: Cell) -> list[str]:
    """
    What tells a cell's runs from all others: one hash for each seed.

    It is of the whole config, with Detectron2's defaults, but without the folder and without what
    depends on the machine. Published results are found by it, so it must not change: see
    `dump_for_hash`.
    """
    from ..engine.defaults import merged_cfg

    cfg = merged_cfg(str(sweep.config), _opts(cell))
    cfg.OUTPUT_DIR = ""
    hashes = []
    for seed in sweep.seeds:
        cfg.SEED = seed
        hashes.append(hashlib.sha256(dump_for_hash(cfg).encode()).hexdigest()[:HASH_DIGITS])
    return hashes


def _opts(cell: Cell) -> list[str]:
    return [text for pair in cell.settings.items() for text in pair]


def _folder(sweep: Sweep, cell: Cell, seed: int, digest: str) -> Path:
    """The run's folder: the one with this hash if there is one, whatever its labels were.

    Of another sweep's folder only what has finished is taken: nothing is ever trained there.
    """
    own = sorted(sweep.output.glob(f"*-{digest}"))
    others = [path for folder in sweep.reuse for path in sorted(folder.glob(f"*-{digest}"))]
    found = [path for path in own + others if ended_well(path)] or own
    name = re.sub(r"[^\w.+-]+", "_", "-".join(cell.labels.values()))
    name = name.encode()[:NAME_LENGTH].decode(errors="ignore")
    return found[0] if found else sweep.output / f"{name}-seed{seed}-{digest}"
