"""What a sweep is made of: cells, rows of its table, and their runs, one for each seed."""

from dataclasses import dataclass
from pathlib import Path

Settings = dict[str, str]  # KEY -> VALUE as on the command line of `alwa-d2 train`
Labels = dict[str, str]  # axis -> label, in the order of the axes


def short(metric: str) -> str:
    """A metric's name in tables and pictures."""
    return metric.removeprefix("bbox/")


@dataclass(frozen=True)
class Cell:
    """One row of the table: the runs that differ by their seed alone."""

    labels: Labels
    settings: Settings

    @property
    def name(self) -> str:
        return " ".join(self.labels.values())


@dataclass(frozen=True)
class Run:
    """One training: what it is called, what it is, where it lies."""

    cell: Cell
    seed: int
    hash: str  # of all settings but the folder
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.cell.name} seed {self.seed}"


@dataclass(frozen=True)
class Best:
    """The second step: the best cell of each kind, on other seeds; see `best.second_step`."""

    of: str  # the KEY whose values are the kinds
    seeds: list[int]


@dataclass(frozen=True)
class Sweep:
    """A checked file; its configs are not merged yet, which `plan.make_runs` does."""

    path: Path
    config: Path
    output: Path
    reuse: list[Path]
    cells: list[Cell]
    seeds: list[int]
    baseline: Labels
    metrics: list[str]
    best: Best | None = None
    chosen_of: str | None = None  # of a second step: the `of` by which its cells were chosen

    def baseline_of(self, cell: Cell) -> Cell | None:
        """The cell with the baseline's labels and else this one's, if there is such a cell."""
        labels = {**cell.labels, **self.baseline} if self.baseline else None
        return next((other for other in self.cells if other.labels == labels), None)

    def own_labels(self, cell: Cell) -> tuple[str, ...]:
        """A cell's labels on the axes that the baseline names."""
        return tuple(cell.labels[axis] for axis in cell.labels if axis in self.baseline)

    def free_axes(self) -> list[str]:
        """The axes that the baseline does not name: on these a cell and its baseline are equal."""
        return [axis for axis in self.cells[0].labels if axis not in self.baseline]

    def free_labels(self, cell: Cell) -> tuple[str, ...]:
        """A cell's labels on these axes: cells that share them are compared with each other."""
        return tuple(cell.labels[axis] for axis in self.free_axes())
