"""The paper's three conclusions, looked for in finished runs, and the advice that follows.

For each run and each pair of its losses: whether the classification loss falls faster than the box
loss, whether weights below 1 were in force, and whether the two weights stay close; each with its
numbers, as `metrics.json` has them. docs/analyses.md says how they are computed.
"""

import math

import numpy as np
from tabulate import tabulate

from .curves import step_positions
from .judging import first_window, gain
from .runs import Run
from .titles import place, rule_name
from .weight_course import advise

# w_cls / w_box of the ratios that the paper recommends is 0.25 / 0.5 and 0.5 / 0.75. The lower one
# is a rule of thumb: two points, found with other data, models and scales of the losses.
SMALLEST_RATIO = 0.25 / 0.5
EVEN = 0.1  # falls that differ by less (relative) count as even; a convention
MOST = 0.9  # share of the iterations from which on something holds, 1 - MOST: it does not
COLUMNS = (
    "run",
    "pair",
    "weights",
    "AP",
    "(i) class falls faster",
    "(ii) weights below 1",
    "(iii) gap",
)


def in_force(run: Run, name: str) -> np.ndarray:
    """The weight of a loss in each iteration, (iterations,).

    Where a weight changed more than once between two lines of the log, the last value counts.
    """
    iterations, values = run.weights(name)
    interval = run.weighting.interval
    positions = step_positions(iterations, values, interval) if interval else iterations
    weights = np.full(run.iterations, 1.0 if interval else values[0])
    for position, value in zip(positions.astype(int), values):
        weights[position:] = value
    return weights


def fall(run: Run, name: str, window: int) -> dict:
    """How the unweighted loss went down: its means at both ends, and when half of that was done."""
    iterations, values = run.series[f"unweighted/loss_{name}"]
    finite = np.isfinite(values)
    iterations, values = iterations[finite], values[finite]
    tail = values[iterations + 1 > 0.9 * run.iterations]
    start, end = first_window(run, name, window)[1], float(np.mean(tail)) if len(tail) else math.nan
    half = None
    if len(values) and values[0] > end:
        below = np.flatnonzero(values <= (values[0] + end) / 2)
        half = int(iterations[below[0]]) + 1 if len(below) else None
    ratio = end / start if start > 0 else math.nan
    return {"first_window": start, "last_tenth": end, "ratio": ratio, "half_done": half}


def faster(cls: dict, box: dict) -> str:
    """Whether the classification loss keeps a smaller part of itself than the box loss."""
    if not math.isfinite(cls["ratio"] + box["ratio"]):
        return "unknown"
    if abs(cls["ratio"] - box["ratio"]) <= EVEN * max(cls["ratio"], box["ratio"]):
        return "even"
    return "yes" if cls["ratio"] < box["ratio"] else "no"


def verdict(share: float) -> str:
    """Whether something holds that held in this share of the iterations."""
    return "yes" if share >= MOST else "no" if share <= 1 - MOST + 1e-9 else "partly"


def falls_faster(run: Run, pair: tuple[str, str], window: int) -> dict:
    """Conclusion (i), with the falls of both losses from a first window of `window` iterations."""
    cls, box = (fall(run, name, window) for name in pair)
    return {"holds": faster(cls, box), "cls": cls, "box": box}


def weights_below_one(cls: np.ndarray, box: np.ndarray) -> dict:
    """Conclusion (ii), of the weights in force in each iteration, (iterations,) each."""
    share = float(np.mean(np.minimum(cls, box) < 1))
    means = {"mean_cls": float(cls.mean()), "mean_box": float(box.mean())}
    return {"holds": verdict(share), **means, "share": share}


def weight_gap(cls: np.ndarray, box: np.ndarray) -> dict:
    """Conclusion (iii), of the same weights: smaller divided by larger one; 0 if both are 0."""
    low, high = np.minimum(cls, box), np.maximum(cls, box)
    ratio = np.divide(low, high, out=np.zeros_like(low), where=high > 0)
    share = float(np.mean(ratio >= SMALLEST_RATIO))
    numbers = {"mean_ratio": float(ratio.mean()), "smallest_ratio": float(ratio.min())}
    return {"holds": verdict(share), **numbers, "share": share}


def diagnose(run: Run, pair: tuple[str, str], runs: list[Run]) -> dict:
    """Numbers, verdicts and advice for one pair of losses of a run; NaN and inf become None.

    The losses' first window is the longest of `runs`, so that their falls can be compared. Weights
    count from the first update on, before which they are 1 whatever the losses do.
    """
    window = max(other.weighting.window for other in runs)
    falls = falls_faster(run, pair, window)
    starts = [falls[kind]["first_window"] for kind in ("cls", "box")]
    courses = [in_force(run, name) for name in pair]
    begin = run.updates[0] if run.updates and run.updates[0] < run.iterations else 0
    counted = [weights[begin:] for weights in courses]
    over = gain(run, runs)
    result = {
        "run": run.name,
        "pair": place(run, pair),
        "losses": [f"loss_{name}" for name in pair],
        "weights": rule_name(run),
        "AP": run.last("bbox/AP"),
        "gain": {"AP": over[0], "over": over[1]} if over else None,
        "window": window,
        "scale_ratio": starts[0] / starts[1] if starts[1] > 0 else None,
        "falls_faster": falls,
        "below_one": weights_below_one(*counted),
        "gap": weight_gap(*counted),
    }
    result["advice"] = advise(run, pair, courses[0], result)
    return finite(result)


def finite(value):
    """`value` with None for each number that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(number: float | None, form: str = ".2g") -> str:
    return "-" if number is None else format(number, form)


def cells(result: dict) -> list[str]:
    """A row of the table."""
    falls, below, gap = (result[key] for key in ("falls_faster", "below_one", "gap"))
    ends = [
        f"{text(falls[kind]['ratio'])} ({text(falls[kind]['half_done'], 'd')})"
        for kind in ("cls", "box")
    ]
    return [
        *(result["run"], result["pair"], result["weights"], text(result["AP"], ".1f")),
        f"{falls['holds']}: {ends[0]}, box {ends[1]}",
        f"{below['holds']}: {below['mean_cls']:.3g}, box {below['mean_box']:.3g}; "
        f"{below['share']:.0%}",
        f"{gap['holds']}: {gap['mean_ratio']:.3g}, least {gap['smallest_ratio']:.2g}; "
        f"{gap['share']:.0%}",
    ]


def report(results: list[dict]) -> str:
    """The table, what its columns are, and the advice of each row."""
    rows = [cells(result) for result in results]
    table = tabulate(rows, headers=COLUMNS, tablefmt="plain", disable_numparse=True)
    window = results[0]["window"]
    notes = f"""
(i)   last tenth / first {window} iterations of the unweighted loss (iteration with half of the
      fall done); even: the two differ by at most {EVEN:.0%}
(ii)  mean weight of the classification loss, of the box loss; share of the iterations in which
      one of them is below 1; from the first update on
(iii) smaller / larger weight: mean and least; share of the iterations with at least
      {SMALLEST_RATIO:g}, a rule of thumb from the paper's 0.25:0.5 and 0.5:0.75; from the first
      update on
yes: in at least {MOST:.0%} of the iterations; no: in at most {1 - MOST:.0%}; partly: between.
One run is one seed: nothing here says that a run with other weights would be better.
"""
    advice = []
    for result in results:
        advice.append(f"{result['run']}, {result['pair']} ({', '.join(result['losses'])}):")
        advice += [f"  - {line}" for line in result["advice"]]
    return "\n".join([table, notes, *advice])
