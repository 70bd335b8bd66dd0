"""Numbers by which runs are judged: gain in AP, and how large the losses are at the start."""

import math
from typing import Any

import numpy as np

from .runs import Run

# What may differ between a run and its twin with weights 1:1.
WEIGHTING_KEYS = ("MODEL.LOSS_WEIGHTER.", "MODEL.ALWA.")
OTHER_KEYS = ("SEED", "OUTPUT_DIR", "OVERWRITE")


def common_settings(run: Run) -> dict[str, Any]:
    """The settings without seed, folder and what weights the losses."""
    return {
        key: value
        for key, value in run.settings.items()
        if key not in OTHER_KEYS and not key.startswith(WEIGHTING_KEYS)
    }


def gain(run: Run, runs: list[Run]) -> tuple[float, str] | None:
    """(AP over that of its twin with weights 1:1, what that is); None if there is none.

    Twins have the same settings but for what weights the losses, and the same number of iterations.
    Best is the one of the same seed; else all of them are taken together.
    """
    own = run.last("bbox/AP")
    same = (common_settings(run), run.iterations)
    twins = [r for r in runs if r.fixed_weights == (1.0, 1.0)]
    twins = [r for r in twins if (common_settings(r), r.iterations) == same]
    scores = [(r.seed, r.last("bbox/AP")) for r in twins]
    scores = [(s, score) for s, score in scores if score is not None and math.isfinite(score)]
    chosen = [score for seed, score in scores if seed == run.seed] or [s for _, s in scores]
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
    reach = max(window or run.weighting.window, int(iterations[0]) + 1)
    inside = values[(iterations < reach) & np.isfinite(values)]
    return reach, float(inside.mean()) if len(inside) else float("nan")


def scale_ratio(run: Run, pair: tuple[str, str]) -> float:
    """Classification loss divided by box loss, means of the first window; NaN at 0."""
    cls, box = (first_window(run, name)[1] for name in pair)
    return cls / box if box > 0 else math.nan
