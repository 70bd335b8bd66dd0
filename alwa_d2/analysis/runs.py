"""Run folders of `train_net.py`, read and checked: what the other tools know of a finished run."""

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from ..errors import UserError

LABELS = {"cls": "classification", "box_reg": "box", "rpn_cls": "RPN class", "rpn_loc": "RPN box"}
WEIGHT, STATISTIC = "alwa/weight_", "alwa/stat_"  # a loss's name follows
HASH = r"-[0-9a-f]{12}$"  # the end of a folder's name that sweep.py gave


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
    window: int  # MODEL.ALWA.INTERVAL, whatever the weighter
    frozen: int  # MODEL.ALWA.FREEZE_AFTER: no update after this iteration; 0 for never
    pairs: list[tuple[str, str]]  # names of (classification, box loss) that are weighted together
    seed: int | None
    rest: dict  # the config without seed, folder and what weights the losses

    @property
    def iterations(self) -> int:
        """Iterations done, by the last logged loss (iterations are counted from 0)."""
        return int(self.series[f"loss_{self.losses[0]}"][0][-1]) + 1

    def last(self, key: str) -> float | None:
        """The newest value of `key`, None if the run never logged it."""
        return float(self.series[key][1][-1]) if key in self.series else None

    def place(self, pair: tuple[str, str]) -> str:
        """Where in the model a pair of losses belongs."""
        stem, _, stage = pair[0].partition("_stage")
        head = "ROI" if stage or "loss_rpn_cls" in self.series else "head"
        place = {"cls": head, "rpn_cls": "RPN"}.get(stem, stem)
        return place + (f", stage {stage}" if stage else "")

    @property
    def updates(self) -> list[int]:
        """Iterations at which a weight may have changed."""
        if not self.interval:
            return []
        last = min(self.iterations, self.frozen or self.iterations)
        return list(range(self.interval, last + 1, self.interval))

    @property
    def pace(self) -> int:
        """Iterations from one line of the log to the next."""
        iterations = self.series[f"loss_{self.losses[0]}"][0]
        return int(np.median(np.diff(iterations, prepend=-1)))

    @property
    def hides_updates(self) -> bool:
        """Whether more than one window may end between two lines of the log."""
        return 0 < self.interval < self.pace

    def weights(self, name: str) -> np.ndarray:
        """The logged weight of a loss, (2, T), and before it the 1 that ALWA begins with."""
        logged = self.series[WEIGHT + name]
        begins = self.interval and 0 < logged[0, 0] < 2 * self.pace  # else a resumed run's rest
        return np.insert(logged, 0, (0.0, 1.0), axis=1) if begins else logged

    @property
    def all_losses(self) -> dict[str, np.ndarray]:
        """Name -> (2, T): each loss without its weight, those that no weighter has included."""
        names = [key.removeprefix("loss_") for key in self.series if key.startswith("loss_")]
        series = {name: f"unweighted/loss_{name}" for name in in_order(names)}
        return {
            name: self.series[key if key in self.series else f"loss_{name}"]
            for name, key in series.items()
        }

    @property
    def fixed_weights(self) -> tuple[float, float] | None:
        """Weights (classification, box) of a run whose weights stay, None if they are adapted."""
        if self.interval or not self.pairs:
            return None
        return tuple(self.last(WEIGHT + name) for name in self.pairs[0])

    @property
    def rule_name(self) -> str:
        """How the weights came about, in a few words."""
        if self.fixed_weights:
            return f"{self.weighter} {':'.join(f'{weight:g}' for weight in self.fixed_weights)}"
        frozen = f", frozen after {self.frozen}" if self.frozen else ""
        rule = f"{self.variant} {self.rule} C={self.interval}{frozen}"
        return rule if self.interval else self.weighter


def label(name: str) -> str:
    """A loss's name in words: "cls_stage0" is "classification, stage 0"."""
    stem, _, stage = name.partition("_stage")
    return LABELS.get(stem, stem) + (f", stage {stage}" if stage else "")


def find_pairs(names: list[str]) -> list[tuple[str, str]]:
    """(classification, box loss) of the names that Detectron2's models give them."""
    pairs = []
    for name in names:
        for word in ("box_reg", "loc"):
            other = re.sub(r"(^|_)cls(?=_|$)", rf"\g<1>{word}", name)
            if other != name and other in names:
                pairs.append((name, other))
    return pairs


def short_name(name: str) -> str:
    """A run's name without the hash that sweep.py puts at its end."""
    return re.sub(HASH, "", name)


def gain(run: Run, runs: list[Run]) -> tuple[float, str] | None:
    """(AP over that of its twin with weights 1:1, what that is); None if there is none.

    Twins have the same config but for what weights the losses, and the same number of iterations.
    Best is the one of the same seed; else all of them are taken together.
    """
    twins = [r for r in runs if (r.rest, r.iterations) == (run.rest, run.iterations)]
    scores = [(r.seed, r.last("bbox/AP")) for r in twins if r.fixed_weights == (1.0, 1.0)]
    scores = [(s, score) for s, score in scores if score is not None and math.isfinite(score)]
    same = [score for seed, score in scores if seed == run.seed]
    chosen = same or [score for _, score in scores]
    own = run.last("bbox/AP")
    if own is None or not math.isfinite(own) or not chosen:
        return None
    what = "1:1" if len(chosen) == 1 else f"the mean of {len(chosen)} with 1:1"
    return own - float(np.mean(chosen)), what


def first_window(run: Run, name: str, window: int | None = None) -> tuple[int, float]:
    """(N, mean): of what is logged of the unweighted loss in the first N iterations.

    N is `window`, by default MODEL.ALWA.INTERVAL, or reaches to the first line if that is later. A
    line is the median of the iterations since the line before.
    """
    iterations, values = run.series[f"unweighted/loss_{name}"]
    reach = max(window or run.window, int(iterations[0]) + 1)
    inside = values[(iterations < reach) & np.isfinite(values)]
    return reach, float(inside.mean()) if len(inside) else float("nan")


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Values by iteration; where a resumed run wrote an iteration again, the later line wins."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the folder of a finished run")
    lines = [(n, line) for n, line in enumerate(path.read_bytes().splitlines(), 1) if line.strip()]
    records: dict[int, dict[str, float]] = {}
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            if records and number == lines[-1][0]:  # the run was killed while it wrote
                print(f"warning: {path}, line {number}: cut off, left out", file=sys.stderr)
                break
            try:  # a line cut off, and behind it the first one after the run was resumed
                record = json.loads(line[line.rindex(b"{") :])
            except ValueError:
                raise UserError(f"{path}, line {number}: not JSON ({error})") from error
            print(f"warning: {path}, line {number}: begin cut off, left out", file=sys.stderr)
        numbers = isinstance(record, dict) and {type(v) for v in record.values()} <= {int, float}
        if not numbers or type(record.get("iteration")) is not int:
            raise UserError(f"{path}, line {number}: expected numbers by key, a whole 'iteration'")
        records.setdefault(record["iteration"], {}).update(record)
    if not records:
        raise UserError(f"{path}: empty; expected one JSON object per line")
    return records


def read_settings(path: Path) -> dict:
    """What a run's `config.yaml` says, by the names of Run's fields; `pairs` as it has them."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        model = config["MODEL"]
        name, alwa = model.pop("LOSS_WEIGHTER")["NAME"], model.pop("ALWA")
        settings = {"weighter": name, "variant": alwa["VARIANT"], "rule": alwa["RULE"]}
        settings["window"] = int(alwa["INTERVAL"])
        settings["interval"] = settings["window"] if name == "ALWA" else 0
        settings["frozen"] = int(alwa.get("FREEZE_AFTER", 0))
        settings["pairs"] = [tuple(str(loss) for loss in pair) for pair in alwa.get("PAIRS", [])]
        settings["seed"] = config.pop("SEED", None)
        config.pop("OUTPUT_DIR", None)
        return settings | {"rest": config}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: expected a run's config with MODEL.ALWA; {reason}") from error


def in_order(names: list[str]) -> list[str]:
    """The names of LABELS in its order, each stage after the other, then all others."""

    def key(name: str) -> tuple[int, str, int]:
        stem, _, stage = name.partition("_stage")
        order = [*LABELS].index(stem) if stem in LABELS else len(LABELS)
        return order // 2, stage, order

    return sorted(names, key=key)


def load_run(folder: str | Path) -> Run:
    """A finished run's folder, read and checked."""
    metrics, config = Path(folder) / "metrics.json", Path(folder) / "config.yaml"
    records = sorted(read_metrics(metrics).items())
    keys = sorted({key for _, record in records for key in record})
    series = {key: np.array([(i, r[key]) for i, r in records if key in r], float).T for key in keys}
    names = [key.removeprefix(WEIGHT) for key in keys if key.startswith(WEIGHT)]
    losses = in_order(names)
    needed = [f"{prefix}loss_{name}" for name in losses for prefix in ("", "unweighted/")]
    missing = [key for key in needed or [f"{WEIGHT}<loss>"] if key not in series]
    if missing:
        raise UserError(f"{metrics}: no line has {', '.join(missing)}, as train_net.py writes it")
    settings = read_settings(config)
    given = [tuple(loss.removeprefix("loss_") for loss in pair) for pair in settings["pairs"]]
    pairs = [pair for pair in given if set(pair) <= set(losses)] or find_pairs(losses)
    name = Path(folder).resolve().name
    return Run(name, series, losses, **settings | {"pairs": pairs})
