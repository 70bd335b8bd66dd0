"""Folders of finished runs, written by hand, and what figures show of them."""

import json
from dataclasses import replace

import numpy as np
import yaml

from alwa_d2.analysis.runs import load_run

WEIGHTS = [1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]  # classification, every 20 iterations


def config(name="ALWA", rule="authors", interval=50, **alwa):
    alwa = {"VARIANT": "ALWA_2", "RULE": rule, "INTERVAL": interval, **alwa}
    return {"MODEL": {"LOSS_WEIGHTER": {"NAME": name}, "ALWA": alwa}}


def records(pairs=("cls", "box_reg"), statistics=True):
    """Lines of a run of 200 iterations; the weight of the first loss falls at iteration 100."""
    lines = []
    for index, weight in enumerate(WEIGHTS):
        line = {"iteration": 20 * index + 19, "lr": 0.01}
        for place, name in enumerate(pairs):
            loss, factor = (place + 1) / (index + 1), weight if place == 0 else 1.0
            line[f"unweighted/loss_{name}"] = loss
            line[f"loss_{name}"] = factor * loss
            line[f"alwa/weight_{name}"] = factor
            if statistics and index >= 2:  # the first window ends in iteration 49
                line[f"alwa/stat_{name}"] = 0.1 * (place + 1)
        lines.append(line)
    return lines + [{"iteration": 200, "bbox/AP": 40.25, "bbox/AP50": 71.5, "bbox/AP75": 39.0}]


def write_run(folder, lines=None, settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    lines = records() if lines is None else lines
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(settings or config()))
    return folder


def constant(folder, cls, box, score=None, **settings):
    """A run of 200 iterations with fixed weights."""
    lines = records(statistics=False)[:-1]
    for line in lines:
        line["alwa/weight_cls"], line["alwa/weight_box_reg"] = cls, box
    return load_run(
        write_run(
            folder,
            lines + [{"iteration": 200, "bbox/AP": score}] * (score is not None),
            config("Fixed") | settings,
        )
    )


def larger(run):
    """The run with losses ten times as large."""
    series = {
        key: np.array([values[0], 10 * values[1]]) if "loss_" in key else values
        for key, values in run.series.items()
    }
    return replace(run, series=series)


def drawn(axes, gid):
    """Coordinates of the lines with this id: [(x, y), ...]."""
    lines = [line for line in axes.lines if line.get_gid() == gid]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]
