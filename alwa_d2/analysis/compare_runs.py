"""Runs side by side: scores, final weights, time, and the settings in which they differ."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import SEPARATING_LINE, tabulate

from .runs import WEIGHT, Run
from .titles import short_name

APART = ("OUTPUT_DIR", "OVERWRITE")  # where a run is, which says nothing of what it is
WIDTH = 32  # characters of a column, beyond which a text is wrapped


@dataclass(frozen=True)
class Line:
    """One thing that is compared."""

    what: str
    values: list[float | str | None]  # of each run, None where it has none
    form: str = ""  # of a number, for people

    def texts(self) -> list[str]:
        """The values for people."""
        return ["-" if value is None else format(value, self.form) for value in self.values]


def compare_scores(runs: Sequence[Run]) -> Iterator[Line]:
    """A line for each average precision, and below them the AP of each class."""
    logged = sorted({key for run in runs for key in run.series})
    for pattern in (r".+/AP\w*", r".+/AP-.+"):  # "bbox/AP50", "bbox/AP-cat"; not "bbox/AP50-cat"
        for key in logged:
            if re.fullmatch(pattern, key):
                yield Line(key, [run.last(key) for run in runs], ".1f")


def compare_training(runs: Sequence[Run]) -> Iterator[Line]:
    """Final weights, and how long the training took."""
    for name in dict.fromkeys(name for run in runs for name in run.losses):
        values = [run.last(WEIGHT + name) for run in runs]
        yield Line(f"final weight of loss_{name}", values, ".3f")
    times = [run.series["time"][1] if "time" in run.series else None for run in runs]
    medians = [None if values is None else float(np.median(values)) for values in times]
    yield Line("seconds per iteration", medians, ".3f")
    yield Line("iterations", [run.iterations for run in runs], "d")


def compare_settings(runs: Sequence[Run]) -> Iterator[Line]:
    """A line for each setting that is not the same in all runs."""
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        values = [str(run.settings[key]) if key in run.settings else None for run in runs]
        if key not in APART and len(set(values)) > 1:
            yield Line(key, values)


def compare_runs(runs: Sequence[Run]) -> list[list[Line]]:
    """What the runs have to show, in three groups: scores, training, settings that differ."""
    return [list(group(runs)) for group in (compare_scores, compare_training, compare_settings)]


def names_of(runs: Sequence[Run], folders: Sequence[str]) -> list[str]:
    """Short names that tell the runs apart, or else their folders as given."""
    names = [short_name(run.name) for run in runs]
    return names if len(set(names)) == len(names) else list(folders)


def format_table(names: Sequence[str], groups: Sequence[Sequence[Line]]) -> str:
    """A column for each run, the groups divided by lines."""
    rows = []
    for group in groups:
        rows += [SEPARATING_LINE] * bool(rows and group)
        rows += [[line.what.removeprefix("bbox/"), *line.texts()] for line in group]
    widths = [None, *[WIDTH] * len(names)]
    style = dict(headers=["", *names], disable_numparse=True, stralign="right")
    style |= dict(colalign=["left"], maxcolwidths=widths, maxheadercolwidths=widths)
    table = tabulate(rows, tablefmt="simple", **style)
    same = f"The settings are the same ({', '.join(APART)} apart)."
    return table if groups[-1] else f"{table}\n{same}"


def write_csv(folders: Sequence[str], groups: Sequence[Sequence[Line]], path: Path) -> None:
    """A row for each run, with numbers as they were logged."""
    lines = [line for group in groups for line in group]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *(line.what for line in lines)])
        writer.writerows(zip(folders, *(line.values for line in lines)))
