"""`results.csv`: one row a run, written by a sweep, and read by one on another machine."""

import csv
import io
import os
from pathlib import Path

from .._show import counted
from ..analysis.runs import WEIGHT
from ..errors import UserError
from .record import FINISHED, Result
from .sweep import Run, Sweep

NAME = "results.csv"
LAST = ("seconds_per_iteration", "wall_seconds", "status", "hash", "folder")  # columns


def to_csv(sweep: Sweep, results: list[Result]) -> str:
    """One row a run; what a run does not have is left empty."""
    weights = sorted({key for result in results for key in result.weights})
    axes = list(sweep.cells[0].labels)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*axes, "seed", *sweep.metrics, *weights, *LAST])
    for result in results:
        row = [*result.run.cell.labels.values(), result.run.seed]
        row += [result.scores.get(name) for name in sweep.metrics]
        row += [result.weights.get(key) for key in weights]
        folder = os.path.relpath(result.run.folder, sweep.output)
        writer.writerow([*row, result.pace, result.seconds, result.status, result.run.hash, folder])
    return file.getvalue()


def read_csv(path: Path, needed: list[str]) -> dict[str, dict[str, str]]:
    """
    The finished runs of a `results.csv` by their hashes: column -> text.

    Raises:
        OSError, ValueError, csv.Error: no such file, or none with the columns `needed`
    """
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, restkey="rest", restval=None)
        if lacking := [name for name in needed if name not in (reader.fieldnames or [])]:
            raise ValueError(f"the first line has no {', '.join(lacking)}")
        rows = list(reader)
    for number, row in enumerate(rows, start=1):
        if "rest" in row or None in row.values():
            raise ValueError(f"run {number} has other columns than the first line")
    return {row["hash"]: row for row in rows if row["status"] == FINISHED}


def fill_in(results: list[Result], path: Path, metrics: list[str]) -> list[Result]:
    """The results, with those of a `results.csv` from elsewhere for runs not finished here."""
    try:
        known = read_csv(path, [*metrics, *LAST[:-1]])
        return [
            result
            if result.status == FINISHED or result.run.hash not in known
            else _from_row(result.run, known[result.run.hash], metrics)
            for result in results
        ]
    except (OSError, ValueError, csv.Error) as error:
        expected = f"expected a {NAME} with {', '.join(metrics)}"
        raise UserError(f"--results {path}: {expected}; {error}") from error


def _from_row(run: Run, row: dict[str, str], metrics: list[str]) -> Result:
    """A finished run as `to_csv` writes it."""
    weights = {key: float(text) for key, text in row.items() if key.startswith(WEIGHT) and text}
    scores = {name: float(row[name]) for name in metrics}
    pace = float(row["seconds_per_iteration"]) if row["seconds_per_iteration"] else None
    return Result(run, FINISHED, "", float(row["wall_seconds"]), scores, weights, pace)


def check_kept(sweep: Sweep, results: list[Result]) -> None:
    """Refuses to write a table without runs that the one in its place has as finished."""
    path = sweep.output / NAME
    try:
        known = read_csv(path, ["status", "hash", "folder"])
    except (OSError, ValueError, csv.Error):
        return  # none, or not one of ours
    kept = {result.run.hash for result in results if result.status == FINISHED}
    gone = {
        digest: row["folder"]
        for digest, row in known.items()
        if digest not in kept and not (sweep.output / row["folder"]).exists()
    }
    if not gone:
        return
    ours = {result.run.hash for result in results}
    lost = [folder for digest, folder in gone.items() if digest in ours]
    if lost:
        remedy = f"keep their scores with --results {path}, or remove the file to train them again"
    else:
        lost = list(gone.values())
        remedy = "they are of other settings or seeds; move the file, or choose another --output"
    raise UserError(
        f"{path} has {counted(len(lost), 'finished runs')} whose folders are gone, such as "
        f"{Path(lost[0]).name}; {remedy}"
    )
