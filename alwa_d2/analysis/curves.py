"""Parts of the figures of losses: curves, steps, marks and axes of one run."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .loss_names import label
from .runs import WEIGHT, Run

# Okabe and Ito's palette: blue, vermilion, green, purple, orange and sky blue stay apart for
# colour-blind readers.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
KEPT = dict(color="0.75", lw=0.8, ls=":")
CHANGED = dict(color="0.45", lw=1.0, ls="-")


def smooth(values: np.ndarray) -> np.ndarray:
    """Running median over about a fifteenth of the points, (T,) -> (T,); NaN if none is finite."""
    half = max(2, len(values) // 30)  # a mean would blur the step that a changed weight makes
    result = []
    for index in range(len(values)):
        reach = min(half, index, len(values) - 1 - index)
        window = [v for v in values[index - reach : index + reach + 1] if np.isfinite(v)]
        result.append(np.median(window) if window else np.nan)
    return np.array(result)


def step_positions(iterations: np.ndarray, values: np.ndarray, interval: int) -> np.ndarray:
    """The iteration from which on each logged value held, (T,).

    Values are logged now and then, but change at multiples of `interval` only: one that differs
    from the value before is put on the last such multiple up to its log line.
    """
    positions = iterations.copy()
    changed = np.flatnonzero(values[1:] != values[:-1]) + 1
    # Iteration i is logged after its update and so shows the weight in force from i + 1 on.
    updates = (iterations[changed] + 1) // interval * interval
    positions[changed] = np.where(updates > iterations[changed - 1], updates, iterations[changed])
    return positions


def update_marks(run: Run) -> tuple[list[int], list[int]]:
    """Iterations at which the weighter ended a window: (no change logged, a weight changed).

    Both are empty where windows are shorter than the log's period: it does not tell which it was.
    """
    interval = run.weighting.interval
    if not interval or run.hides_updates:
        return [], []
    changed: set[int] = set()
    for name in run.losses:
        iterations, values = run.weights(name)
        positions = step_positions(iterations, values, interval)
        changed.update(positions[1:][np.diff(values) != 0].astype(int).tolist())
    return [i for i in run.updates if i not in changed], sorted(changed)


def draw_losses(axes, run: Run) -> None:
    """Each loss unweighted (broad, solid) and weighted (thin, dashed): points, running median."""
    for name, hue in zip(run.losses, HUES * len(run.losses)):
        for key, what, marker, line in (
            (f"unweighted/loss_{name}", "unweighted", "o", dict(ls="-", lw=3.2, alpha=0.5)),
            (f"loss_{name}", "weighted", "x", dict(ls="--", lw=1.4)),
        ):
            iterations, values = run.series[key]
            alpha = 0.3 if len(values) < 200 else 0.12
            faint = dict(ms=2.5, mew=0.6, alpha=alpha, gid=f"points {key}")
            axes.plot(iterations, values, marker, color=hue, **faint)
            line |= dict(label=f"{label(name)}, {what}", gid=f"median {key}")
            axes.plot(iterations, smooth(values), color=hue, **line)
    axes.set_ylabel("loss")
    axes.legend(fontsize=8, ncols=2)


def draw_steps(axes, run: Run, prefix: str, what: str) -> None:
    """Step curves of what is logged as `prefix` + name of a loss, over marks of the updates."""
    kept, changed = update_marks(run)
    for iterations, style, gid in ((kept, KEPT, "kept"), (changed, CHANGED, "changed")):
        for iteration in iterations:  # fainter if many, or a long run's marks fill the panel
            axes.axvline(iteration, **style, alpha=min(1.0, 60 / len(iterations)), gid=gid)
    interval = run.weighting.interval
    width = 2.8  # thinner from loss to loss, so that equal weights do not hide each other
    for name, hue in zip(run.losses, HUES * len(run.losses)):
        if prefix + name not in run.series:
            continue
        iterations, values = run.weights(name) if prefix == WEIGHT else run.series[prefix + name]
        positions = step_positions(iterations, values, interval) if interval else iterations
        if prefix != WEIGHT and interval:  # there is none before a window's end
            positions[0] = (iterations[0] + 1) // interval * interval or iterations[0]
        dot = dict(marker=".", ms=width + 4, markevery=[-1])  # a step at the very end has no line
        line = dict(gid=prefix + name, label=f"{what} of {label(name)} loss", lw=width)
        axes.step(positions, values, where="post", color=hue, **line, **dot)
        width = max(width / 2, 1.2)
    handles = axes.get_legend_handles_labels()[0]
    handles += [Line2D([], [], **KEPT, label="update, no change logged")] if kept else []
    handles += [Line2D([], [], **CHANGED, label="update, a weight changed")] if changed else []
    title = f"logged every {run.pace} iterations: changes in between are not shown"
    style = dict(fontsize=8, ncols=2, title_fontsize=8)
    axes.legend(handles=handles, title=title if run.hides_updates else None, **style)


def use_log_scale(row, suffix: str = " (log scale)") -> None:
    """Makes the y axes of a whole row logarithmic if what it shows spans more than a decade."""
    values = np.concatenate([line.get_ydata() for axes in row for line in axes.lines])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() / values.min() > 10:
        for axes in row:
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel(axes.get_ylabel() + suffix)
