"""What came out of a sweep: its runs read, its statistics, `results.csv` and `results.md`.

docs/experiments.md says how to read the table. The script is `sweep.py`.
"""

import csv
import io
import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..analysis.runs import WEIGHT, read_metrics
from ..errors import UserError
from .plan import RECORD, Cell, Run, Sweep, read_record

FINISHED, FAILED, UNSCORED, MISSING = "finished", "failed", "unscored", "missing"
NONE = "–"  # in the table, where there is no number


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


def write_atomically(path: Path, text: str) -> None:
    """The file is the old one or the new one at any time, whatever happens meanwhile."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_record(run: Run, seconds: float, status: int, error: list[str]) -> None:
    """Marks a run as ended; `status` is the exit status, `error` its last lines if it failed."""
    record = {"hash": run.hash, "labels": run.cell.labels, "seed": run.seed}
    record |= {"seconds": round(seconds, 3), "status": status, "error": error}
    write_atomically(run.folder / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_result(run: Run, metrics: list[str]) -> Result:
    """A run that has not ended is a missing one, whatever else its folder holds."""
    record = read_record(run.folder)
    if record is None:
        return Result(run)
    status, seconds = record["status"], record["seconds"]
    if status:
        lines = [line for line in record["error"] if line.strip()]
        reason = lines[-1] if lines else "nothing was printed"
        return Result(run, FAILED, f"exit status {status}: {reason.strip()}", seconds)
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


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (Numerical Recipes, 6.4), by Lentz."""
    tiny = 1e-300
    c, d = 1.0, 1.0 / ((1.0 - (a + b) * x / (a + 1.0)) or tiny)
    result = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / ((1.0 + term * d) or tiny)
            c = (1.0 + term / c) or tiny
            result *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return result


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), 0 <= x <= 1, a and b above 0."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # where the fraction converges slowly
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    log = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log += a * math.log(x) + b * math.log1p(-x)
    return math.exp(log) * _beta_fraction(x, a, b) / a


def paired_p(differences: list[float]) -> float | None:
    """Two-sided p of Student's paired t-test; None for fewer than three pairs or no variance."""
    n = len(differences)
    if n < 3:
        return None
    sd = statistics.stdev(differences)
    # Equal differences of decimal fractions differ by rounding; that is no variance either.
    if not sd > 1e-9 * max(map(abs, differences)):
        return None
    t = statistics.fmean(differences) / (sd / math.sqrt(n))
    return incomplete_beta((n - 1) / (n - 1 + t * t), (n - 1) / 2, 0.5)


def to_csv(sweep: Sweep, results: list[Result]) -> str:
    """One row a run; what a run does not have is left empty."""
    weights = sorted({key for result in results for key in result.weights})
    axes = list(sweep.cells[0].labels)
    last = ["seconds_per_iteration", "wall_seconds", "status", "hash", "folder"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*axes, "seed", *sweep.metrics, *weights, *last])
    for result in results:
        row = [*result.run.cell.labels.values(), result.run.seed]
        row += [result.scores.get(name) for name in sweep.metrics]
        row += [result.weights.get(key) for key in weights]
        folder = os.path.relpath(result.run.folder, sweep.output)
        writer.writerow([*row, result.pace, result.seconds, result.status, result.run.hash, folder])
    return file.getvalue()


def read_csv(path: Path, needed: list[str]) -> dict[str, dict[str, str]]:
    """The finished runs of a `results.csv` by their hashes: column -> text."""
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
        columns = [*metrics, "seconds_per_iteration", "wall_seconds", "status", "hash"]
        known = read_csv(path, columns)
        return [
            result
            if result.status == FINISHED or result.run.hash not in known
            else _from_row(result.run, known[result.run.hash], metrics)
            for result in results
        ]
    except (OSError, ValueError, csv.Error) as error:
        expected = f"expected a results.csv with {', '.join(metrics)}"
        raise UserError(f"--results {path}: {expected}; {error}") from error


def _from_row(run: Run, row: dict[str, str], metrics: list[str]) -> Result:
    """A finished run as `to_csv` writes it."""
    weights = {key: float(text) for key, text in row.items() if key.startswith(WEIGHT) and text}
    scores = {name: float(row[name]) for name in metrics}
    pace = float(row["seconds_per_iteration"]) if row["seconds_per_iteration"] else None
    return Result(run, FINISHED, "", float(row["wall_seconds"]), scores, weights, pace)


def check_kept(sweep: Sweep, results: list[Result]) -> None:
    """Refuses to write a table without runs that the one in its place has as finished."""
    path = sweep.output / "results.csv"
    try:
        known = read_csv(path, ["status", "hash"])
    except (OSError, ValueError, csv.Error):
        return  # none, or not one of ours
    missing = [result.run for result in results if result.status == MISSING]
    lost = [run for run in missing if run.hash in known and not run.folder.exists()]
    if lost:
        raise UserError(
            f"{path} has {len(lost)} finished runs whose folders are gone, such as "
            f"{lost[0].folder.name}; keep their scores with --results {path}, or remove the "
            "file to train them again"
        )


def mean_and_sd(values: list[float]) -> str:
    if not values:
        return NONE
    sd = f"{statistics.stdev(values):.1f}" if len(values) > 1 else NONE
    return f"{statistics.fmean(values):.1f} ± {sd}"


def difference(own: dict[int, float], base: dict[int, float]) -> str:
    """Mean difference over the common seeds and its p; arguments are seed -> value."""
    differences = [value - base[seed] for seed, value in own.items() if seed in base]
    if not differences:
        return NONE
    p = paired_p(differences)
    digits = NONE if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return f"{statistics.fmean(differences):+.1f} ({digits})"


def _cell_row(sweep: Sweep, cell: Cell, results: list[Result]) -> list[str]:
    base = sweep.baseline_of(cell)

    def finished(which: Cell | None) -> list[Result]:
        return [r for r in results if r.run.cell is which and r.status == FINISHED]

    def pace(which: Cell | None) -> float:
        paces = [result.pace for result in finished(which) if result.pace is not None]
        return statistics.median(paces) if paces else math.nan

    def scores(which: Cell | None, name: str) -> dict[int, float]:
        values = {result.run.seed: result.scores[name] for result in finished(which)}
        return {seed: value for seed, value in values.items() if math.isfinite(value)}

    row = [*cell.labels.values(), str(len(finished(cell)))]
    row += [mean_and_sd([*scores(cell, name).values()]) for name in sweep.metrics]
    for name in sweep.metrics:
        delta = difference(scores(cell, name), scores(base, name))
        row.append("baseline" if base is cell else delta)
    seconds, overhead = pace(cell), 100 * (pace(cell) / pace(base) - 1)
    row.append(NONE if math.isnan(seconds) else f"{seconds:.3f}")
    return [*row, NONE if base is cell or math.isnan(overhead) else f"{overhead:+.1f}"]


def _note(sweep: Sweep) -> str:
    base = ", ".join(f"{axis} {label}" for axis, label in sweep.baseline.items())
    lines = [
        "Mean ± sample standard deviation over seeds. Δ: mean difference to the baseline over the "
        "seeds that both have, and in brackets the two-sided p of a paired t-test over them (–: "
        "fewer than three common seeds, or no variance); p is of that one comparison: of twenty "
        "rows without any effect one falls below 0.05.",
        f"The baseline is {base}, the other axes equal." if base else "No baseline is named.",
        "s/iter: median over the runs of each one's median of the logged seconds of an iteration; "
        "overhead: how much longer than the baseline's, in per cent. Runs side by side, other work "
        "on the machine, or runs of several machines make this noisy.",
    ]
    return "\n".join(lines)


def _exceptions(results: list[Result]) -> Iterator[str]:
    titles = {FAILED: "Failed runs", UNSCORED: "Runs without the metric", MISSING: "Missing runs"}
    for status, title in titles.items():
        some = [result for result in results if result.status == status]
        if some:
            yield f"\n{title}: {len(some)}\n"
        for result in some:
            error = " ".join(result.error.split()).replace("`", "'")
            yield f"- {result.run.name}" + (f" (`{result.run.folder}`): `{error}`" if error else "")
    odd = [
        f"- {result.run.name} (`{result.run.folder}`): {name} is {score}"
        for result in results
        for name, score in result.scores.items()
        if not math.isfinite(score)
    ]
    if odd:
        yield "\nScores that are no numbers, left out above:\n"
        yield from odd


def to_markdown(sweep: Sweep, results: list[Result]) -> str:
    """One row a cell, what the columns mean, and the runs that are not in it."""
    axes = list(sweep.cells[0].labels)
    scores = [name.removeprefix("bbox/") for name in sweep.metrics]
    header = [*axes, "seeds", *scores, *(f"Δ {name} (p)" for name in scores)]
    header += ["s/iter", "overhead %"]
    done = sum(result.status == FINISHED for result in results)
    lines = [f"# {sweep.path.stem}\n", f"{done} of {len(results)} runs have finished.\n"]
    rows = [header, ["---"] * len(axes) + ["---:"] * (len(header) - len(axes))]
    rows += [_cell_row(sweep, cell, results) for cell in sweep.cells]
    for row in rows:
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |")
    return "\n".join([*lines, "", _note(sweep), *_exceptions(results)]) + "\n"


def write_results(sweep: Sweep, results: list[Result]) -> None:
    """Both files of the sweep's folder, also while part of it is still to be done."""
    sweep.output.mkdir(parents=True, exist_ok=True)
    write_atomically(sweep.output / "results.csv", to_csv(sweep, results))
    write_atomically(sweep.output / "results.md", to_markdown(sweep, results))
