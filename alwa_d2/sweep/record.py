"""When a run counts as finished: its `run.json`, and what a run's folder holds beside it.

`run.json` is written last, when the training's process has ended. So a folder

- without a readable `run.json` is a run half done, which is begun anew;
- with one that has another exit status than 0 is a failed run, which is left alone;
- with exit status 0 and all metrics of the sweep in `metrics.json` is a finished run.
"""

import json
import math
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..analysis.runs import WEIGHT, read_metrics
from ..errors import UserError
from .sweep import Cell, Run

RECORD = "run.json"
FINISHED, FAILED, UNSCORED, MISSING = "finished", "failed", "unscored", "missing"


@dataclass
class Result:
    """What a run's folder holds."""

    run: Run
    status: str = MISSING
    error: str = ""  # why it failed, or has no score
    seconds: float | None = None  # wall time
    scores: dict[str, float] = field(default_factory=dict)  # metric -> value after training
    weights: dict[str, float] = field(default_factory=dict)  # alwa/weight_... -> last value
    pace: float | None = None  # seconds of an iteration, median of those logged


def scores_of(results: Iterable[Result], cell: Cell | None, metric: str) -> dict[int, float]:
    """Seed -> score of a cell's finished runs, of those whose score is a number."""
    done = [r for r in results if r.run.cell is cell and r.status == FINISHED]
    scores = {result.run.seed: result.scores[metric] for result in done}
    return {seed: score for seed, score in scores.items() if math.isfinite(score)}


def write_atomically(path: Path, text: str) -> None:
    """The file is the old one or the new one at any time, whatever happens meanwhile."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
    except OSError as error:
        error.filename = str(path)  # a full disk does not say of which file
        raise
    os.replace(part, path)


def write_record(run: Run, seconds: float, status: int | None, error: list[str]) -> None:
    """
    Marks a run as ended.

    Args:
        run: the run
        seconds: wall time that it took
        status: exit status of the training; None if it is not known, since it was killed with all
            that watched it
        error: last lines that a failed run printed
    """
    record = {"hash": run.hash, "labels": run.cell.labels, "seed": run.seed}
    record |= {"seconds": round(seconds, 3), "status": status, "error": error}
    if run.folder.is_dir():  # nobody has removed it
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        write_atomically(run.folder / RECORD, text)


def read_record(folder: Path) -> dict[str, Any] | None:
    """How the run in this folder ended; None if it has not, or if the file was cut off."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return record if {"status", "seconds", "error"} <= record.keys() else None
    except (OSError, ValueError, AttributeError):
        return None


def ended_well(folder: Path) -> bool:
    """Whether the run in this folder was trained to its end, and has metrics, whichever."""
    record = read_record(folder)
    return record is not None and record["status"] == 0 and (folder / "metrics.json").is_file()


def read_result(run: Run, metrics: list[str]) -> Result:
    """A run that has not ended is a missing one, whatever else its folder holds."""
    record = read_record(run.folder)
    if record is None:
        return Result(run)
    seconds = record["seconds"]
    if record["status"] != 0:
        return Result(run, FAILED, _reason(record), seconds)
    try:
        records = sorted(read_metrics(run.folder / "metrics.json").items())
    except UserError as problem:
        return Result(run, FAILED, str(problem), seconds)
    last = {key: value for _, line in records for key, value in line.items()}
    lacking = [name for name in metrics if name not in last]
    if lacking:
        scores = ", ".join(sorted(key for key in last if "/AP" in key and "-" not in key))
        reason = f"metrics.json has no {', '.join(lacking)}; it has {scores or 'no evaluation'}"
        return Result(run, UNSCORED, reason, seconds)
    weights = {key: value for key, value in last.items() if key.startswith(WEIGHT)}
    times = [line["time"] for _, line in records if "time" in line]
    pace = statistics.median(times) if times else None
    scores = {name: last[name] for name in metrics}
    return Result(run, FINISHED, "", seconds, scores, weights, pace)


def _reason(record: dict[str, Any]) -> str:
    """Why a run failed, by the last line that it printed."""
    lines = [line.strip() for line in record["error"] if line.strip()]
    reason = lines[-1] if lines else "nothing was printed"
    return reason if record["status"] is None else f"exit status {record['status']}: {reason}"
