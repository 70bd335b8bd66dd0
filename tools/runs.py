"""Run folders of `train_net.py`, read and checked: what the other tools know of a finished run."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

LABELS = {"cls": "classification", "box_reg": "box", "rpn_cls": "RPN class", "rpn_loc": "RPN box"}
WEIGHT, STATISTIC = "alwa/weight_", "alwa/stat_"  # a loss's name follows


class ToolError(Exception):
    """A mistake on the command line or an unusable file, said in one line."""


@dataclass(frozen=True)
class Run:
    """What the figure needs of one run."""

    name: str
    series: dict[str, np.ndarray]  # logged key -> (2, T): iterations, values
    losses: list[str]  # names that follow "alwa/weight_", such as cls and box_reg
    weighter: str  # MODEL.LOSS_WEIGHTER.NAME
    variant: str
    rule: str
    interval: int  # iterations between two updates of the weights, 0 if they stay

    @property
    def iterations(self) -> int:
        """Iterations done, by the last logged loss (iterations are counted from 0)."""
        return int(self.series[f"loss_{self.losses[0]}"][0][-1]) + 1

    def last(self, key: str) -> float | None:
        """The newest value of `key`, None if the run never logged it."""
        return float(self.series[key][1][-1]) if key in self.series else None


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Values by iteration; where a resumed run wrote an iteration again, the later line wins."""
    if not path.is_file():
        raise ToolError(f"{path}: no such file; expected the folder of a finished run")
    lines = [(n, line) for n, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()]
    records: dict[int, dict[str, float]] = {}
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            if records and number == lines[-1][0]:  # the run was killed while it wrote
                print(f"warning: {path}, line {number}: cut off, left out", file=sys.stderr)
                break
            raise ToolError(f"{path}, line {number}: not JSON ({error})") from error
        numbers = isinstance(record, dict) and {type(v) for v in record.values()} <= {int, float}
        if not numbers or type(record.get("iteration")) is not int:
            raise ToolError(f"{path}, line {number}: expected numbers by key, a whole 'iteration'")
        records.setdefault(record["iteration"], {}).update(record)
    if not records:
        raise ToolError(f"{path}: empty; expected one JSON object per line")
    return records


def read_settings(path: Path) -> tuple[str, str, str, int]:
    """Weighter, variant, rule and interval from a run's `config.yaml`."""
    try:
        model = yaml.safe_load(path.read_text(encoding="utf-8"))["MODEL"]
        name, alwa = model["LOSS_WEIGHTER"]["NAME"], model["ALWA"]
        interval = int(alwa["INTERVAL"]) if name == "ALWA" else 0
        return name, alwa["VARIANT"], alwa["RULE"], interval
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ToolError(f"{path}: expected a run's config with MODEL.ALWA; {reason}") from error


def load_run(folder: str | Path) -> Run:
    """A finished run's folder, read and checked."""
    metrics, config = Path(folder) / "metrics.json", Path(folder) / "config.yaml"
    records = sorted(read_metrics(metrics).items())
    keys = sorted({key for _, record in records for key in record})
    series = {key: np.array([(i, r[key]) for i, r in records if key in r], float).T for key in keys}
    names = [key.removeprefix(WEIGHT) for key in keys if key.startswith(WEIGHT)]
    losses = sorted(names, key=lambda name: [*LABELS, name].index(name))
    needed = [f"{prefix}loss_{name}" for name in losses for prefix in ("", "unweighted/")]
    missing = [key for key in needed or [f"{WEIGHT}<loss>"] if key not in series]
    if missing:
        raise ToolError(f"{metrics}: no line has {', '.join(missing)}, as train_net.py writes it")
    return Run(Path(folder).resolve().name, series, losses, *read_settings(config))
