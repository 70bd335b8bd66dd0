"""A finished run: what it logged, its settings, and how its losses were weighted."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .loss_names import find_pairs, in_order
from .run_files import read_config, read_metrics

WEIGHT, STATISTIC = "alwa/weight_", "alwa/stat_"  # a loss's name follows
_SAME = 1e-6  # weights are float32, and means over processes


@dataclass(frozen=True)
class Weighting:
    """How a run's losses were weighted, by its settings."""

    name: str  # MODEL.LOSS_WEIGHTER.NAME
    variant: str  # MODEL.ALWA.VARIANT; those below are of MODEL.ALWA too
    rule: str  # RULE
    window: int  # INTERVAL in iterations, whatever the weighter
    frozen: int  # FREEZE_AFTER: no update after this iteration; 0 for never
    pairs: list[tuple[str, str]]  # (classification, box loss) that are weighted together

    @property
    def interval(self) -> int:
        """Iterations between two updates of the weights, 0 if they stay."""
        return self.window if self.name == "ALWA" else 0

    @classmethod
    def from_settings(cls, settings: dict[str, Any], losses: list[str]) -> "Weighting":
        """
        Args:
            settings: of the run, by their dotted keys
            losses: those with a weight; pairs that the settings do not name are found among them
        """
        groups = settings.get("MODEL.LOSS_WEIGHTER.LOSSES") or settings.get("MODEL.ALWA.PAIRS")
        groups = groups if isinstance(groups, list) else []  # else "pairs" or "all"
        given = [
            tuple(loss.removeprefix("loss_") for loss in group)
            for group in groups
            if len(group) == 2
        ]
        return cls(
            name=settings["MODEL.LOSS_WEIGHTER.NAME"],
            variant=settings["MODEL.ALWA.VARIANT"],
            rule=settings["MODEL.ALWA.RULE"],
            window=int(settings["MODEL.ALWA.INTERVAL"]),
            frozen=int(settings.get("MODEL.ALWA.FREEZE_AFTER", 0)),
            pairs=[pair for pair in given if set(pair) <= set(losses)] or find_pairs(losses),
        )


@dataclass(frozen=True)
class Run:
    """What a run's folder tells of it."""

    name: str  # of the folder
    series: dict[str, np.ndarray]  # logged key -> (2, T): iterations, values
    losses: list[str]  # names that follow "alwa/weight_", such as cls and box_reg
    settings: dict[str, Any]  # dotted key -> value
    weighting: Weighting

    @property
    def seed(self) -> int | None:
        """SEED, None if it has none."""
        return self.settings.get("SEED")

    @property
    def iterations(self) -> int:
        """Iterations done, by the last logged loss (iterations are counted from 0)."""
        return int(self.series[f"loss_{self.losses[0]}"][0][-1]) + 1

    @property
    def pace(self) -> int:
        """Iterations from one line of the log to the next."""
        iterations = self.series[f"loss_{self.losses[0]}"][0]
        return int(np.median(np.diff(iterations, prepend=-1)))

    def last(self, key: str) -> float | None:
        """The newest value of `key`, None if the run never logged it."""
        return float(self.series[key][1][-1]) if key in self.series else None

    def weights(self, name: str) -> np.ndarray:
        """The logged weight of a loss, (2, T), and before it the 1 that ALWA begins with."""
        logged = self.series[WEIGHT + name]
        # A first line far from the start is the rest of a run that was resumed elsewhere.
        begins = self.weighting.interval and 0 < logged[0, 0] < 2 * self.pace
        return np.insert(logged, 0, (0.0, 1.0), axis=1) if begins else logged

    @property
    def fixed_weights(self) -> tuple[float, float] | None:
        """Weights (classification, box) of a run whose weights stay, None if they may move."""
        if self.weighting.name != "Fixed" or not self.weighting.pairs or self.was_changed:
            return None
        return tuple(self.last(WEIGHT + name) for name in self.weighting.pairs[0])

    @property
    def was_changed(self) -> bool:
        """Whether weights have moved that stay by the settings: a resumed run had others before."""
        weights = (self.series[WEIGHT + name][1] for name in self.losses)
        return self.weighting.name == "Fixed" and any(np.ptp(each) > _SAME for each in weights)

    @property
    def updates(self) -> list[int]:
        """Iterations at which a weight may have changed."""
        interval = self.weighting.interval
        if not interval:
            return []
        last = min(self.iterations, self.weighting.frozen or self.iterations)
        return list(range(interval, last + 1, interval))

    @property
    def hides_updates(self) -> bool:
        """Whether more than one window may end between two lines of the log."""
        return 0 < self.weighting.interval < self.pace


def load_run(folder: str | Path) -> Run:
    """A finished run's folder, read and checked.

    Raises:
        UserError: a file is missing, or is not as `alwa-d2 train` writes it
    """
    metrics, config = Path(folder) / "metrics.json", Path(folder) / "config.yaml"
    records = sorted(read_metrics(metrics).items())
    keys = sorted({key for _, record in records for key in record})
    series = {key: np.array([(i, r[key]) for i, r in records if key in r], float).T for key in keys}
    losses = in_order([key.removeprefix(WEIGHT) for key in keys if key.startswith(WEIGHT)])
    needed = [f"{prefix}loss_{name}" for name in losses for prefix in ("", "unweighted/")]
    missing = [key for key in needed or [f"{WEIGHT}<loss>"] if key not in series]
    if missing:
        raise UserError(f"{metrics}: no line has {', '.join(missing)}, as alwa-d2 train writes it")
    settings = read_config(config)
    try:
        weighting = Weighting.from_settings(settings, losses)
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        reason = f"no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{config}: expected a run's config with MODEL.ALWA; {reason}") from error
    run = Run(Path(folder).resolve().name, series, losses, settings, weighting)
    if run.was_changed:
        print(
            f"warning: {config}: Fixed weights, but those in {metrics.name} move: the settings are "
            "the last ones of a run that was resumed with others",
            file=sys.stderr,
        )
    return run
