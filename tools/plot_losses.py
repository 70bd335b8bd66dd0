"""A picture of finished runs: losses, loss weights and the statistics that moved them.

    python tools/plot_losses.py OUTPUT_DIR [OUTPUT_DIR ...] [--output FILE] [--title TITLE]

Reads `metrics.json` and `config.yaml` of each run; writes `losses.png` into the first one's folder.
"""

import argparse
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from PIL import Image

MAX_PNG_BYTES = 300_000  # per picture, so that a page with several of them stays light
# Okabe and Ito's palette: blue, vermillion, green, purple stay apart for colour-blind readers.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
LABELS = {"cls": "classification", "box_reg": "box", "rpn_cls": "RPN class", "rpn_loc": "RPN box"}
STATISTICS = {"ALWA_1": "mean + std", "ALWA_2": "std"}
WEIGHT, STATISTIC = "alwa/weight_", "alwa/stat_"  # a loss's name follows
KEPT = dict(color="0.75", lw=0.8, ls=":")
CHANGED = dict(color="0.45", lw=1.0, ls="-")
RGB = tuple[int, int, int]  # 0..255 each


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
    """Iterations at which the weighter ended a window: (weights kept, a weight changed)."""
    if not run.interval:
        return [], []
    changed: set[int] = set()
    for name in run.losses:
        iterations, values = run.series[WEIGHT + name]
        positions = step_positions(iterations, values, run.interval)
        changed.update(positions[1:][np.diff(values) != 0].astype(int).tolist())
    every = range(run.interval, run.iterations + 1, run.interval)
    return [i for i in every if i not in changed], sorted(changed)


def draw_losses(axes, run: Run) -> None:
    """Each loss unweighted (broad, solid) and weighted (thin, dashed): points, running median."""
    for name, hue in zip(run.losses, HUES * len(run.losses)):
        for key, label, marker, line in (
            (f"unweighted/loss_{name}", "unweighted", "o", dict(ls="-", lw=3.2, alpha=0.5)),
            (f"loss_{name}", "weighted", "x", dict(ls="--", lw=1.4)),
        ):
            iterations, values = run.series[key]
            alpha = 0.3 if len(values) < 200 else 0.12
            faint = dict(ms=2.5, mew=0.6, alpha=alpha, gid=f"points {key}")
            axes.plot(iterations, values, marker, color=hue, **faint)
            line |= dict(label=f"{LABELS.get(name, name)}, {label}", gid=f"median {key}")
            axes.plot(iterations, smooth(values), color=hue, **line)
    axes.set_ylabel("loss")
    axes.legend(fontsize=8, ncols=2)


def draw_steps(axes, run: Run, prefix: str, label: str) -> None:
    """Step curves of what is logged as `prefix` + name of a loss, over marks of the updates."""
    kept, changed = update_marks(run)
    for iterations, style, gid in ((kept, KEPT, "kept"), (changed, CHANGED, "changed")):
        for iteration in iterations:  # fainter if many, or a long run's marks fill the panel
            axes.axvline(iteration, **style, alpha=min(1.0, 60 / len(iterations)), gid=gid)
    width = 2.8  # thinner from loss to loss, so that equal weights do not hide each other
    for name, hue in zip(run.losses, HUES * len(run.losses)):
        if prefix + name not in run.series:
            continue
        iterations, values = run.series[prefix + name]
        positions = step_positions(iterations, values, run.interval) if run.interval else iterations
        dot = dict(marker=".", ms=width + 4, markevery=[-1])  # a step at the very end has no line
        line = dict(gid=prefix + name, label=f"{label} of {LABELS.get(name, name)} loss", lw=width)
        axes.step(positions, values, where="post", color=hue, **line, **dot)
        width = max(width / 2, 1.2)
    handles = axes.get_legend_handles_labels()[0]
    handles += [Line2D([], [], **KEPT, label="update, weights kept")] if kept else []
    handles += [Line2D([], [], **CHANGED, label="update, a weight changed")] if changed else []
    axes.legend(handles=handles, fontsize=8, ncols=2)


def headline(run: Run) -> str:
    """Two lines: the run's name; weighter, its settings and the last AP."""
    parts = [run.variant, f"rule {run.rule}", f"C = {run.interval} iterations"]
    if not run.interval:
        weights = " : ".join(f"{run.last(WEIGHT + name):g}" for name in run.losses)
        parts = [f"{run.weighter} weights {weights}"]
    scores = {key: run.last(f"bbox/{key}") for key in ("AP", "AP50")}
    parts += [f"{key} {score:.1f}" for key, score in scores.items() if score is not None]
    return f"{run.name}\n{', '.join(parts)}"


def use_log_scale(row) -> None:
    """Makes the y axes of a whole row logarithmic if what it shows spans more than a decade."""
    values = np.concatenate([line.get_ydata() for axes in row for line in axes.lines])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() / values.min() > 10:
        for axes in row:
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("loss (log scale)")


def make_figure(runs: list[Run], title: str | None = None) -> Figure:
    """One column per run with the panels losses, weights and, if any run has them, statistics."""
    measured = [any(STATISTIC + name in run.series for name in run.losses) for run in runs]
    rows = 3 if any(measured) else 2
    figure = Figure(figsize=(8.2 * len(runs), 0.8 + 3.1 * rows), layout="constrained")
    sharing = dict(squeeze=False, sharex="col", sharey="row")
    grid = figure.subplots(rows, len(runs), **sharing, height_ratios=[1.5, 1, 1][:rows])
    for run, has_statistics, (losses, weights, *rest) in zip(runs, measured, grid.T):
        losses.set_title(headline(run), fontsize=11)
        draw_losses(losses, run)
        draw_steps(weights, run, WEIGHT, "weight")
        weights.set_ylabel("loss weight")
        if has_statistics:
            draw_steps(rest[0], run, STATISTIC, "S")
            kind = "unweighted" if run.rule == "balance" else "weighted"
            what = STATISTICS.get(run.variant, run.variant)
            rest[0].set_ylabel(f"S = {what} of the\n{kind} loss in a window")
        elif rest:
            rest.pop().remove()
        panels = (losses, weights, *rest)
        panels[-1].set_xlabel("iteration")
        panels[-1].tick_params(labelbottom=True)
        for axes in panels:
            axes.grid(axis="y", color="0.92", lw=0.6)
            axes.set_xlim(0, None)
    use_log_scale(grid[0])
    if title:
        figure.suptitle(title, fontsize=13)
    return figure


def pack(image: Image.Image, colours: int, keep: tuple[RGB, ...]) -> bytes:
    """A PNG of `image` with a palette of `colours`, in which those of `keep` stay exact.

    The palette comes from a sixteenth of the pixels, since k-means is slow. No dithering: it looks
    noisy, packs badly, and makes two copies of a picture differ.
    """
    thin = image.resize((image.width // 4 + 1, image.height // 4 + 1), Image.Resampling.NEAREST)
    found = thin.quantize(colours - len(keep), kmeans=2).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*sum(keep, ()), *found])
    indices = np.array(image.quantize(palette=palette, dither=Image.Dither.NONE))
    for index, colour in enumerate(keep):
        indices[(np.asarray(image) == colour).all(axis=-1)] = index
    packed = Image.fromarray(indices)
    packed.putpalette(palette.getpalette())
    packed.save(buffer := io.BytesIO(), "PNG", optimize=True)
    return buffer.getvalue()


def save_png(draw: Callable[[float], Image.Image], path: Path, keep: tuple[RGB, ...] = ()) -> None:
    """Writes `draw(scale)` to `path`, in colours and size what MAX_PNG_BYTES allow (scale <= 1)."""
    scale, data = 1.0, b""
    while not data or len(data) > MAX_PNG_BYTES:
        image = draw(scale).convert("RGB")
        for colours in (256, 128, 64):
            data = pack(image, colours, ((255, 255, 255), *keep))
            if len(data) <= MAX_PNG_BYTES:
                break
        scale *= 0.95
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def rasterise(figure: Figure, dpi: float) -> Image.Image:
    """The figure's pixels at `dpi` dots per inch."""
    figure.savefig(buffer := io.BytesIO(), dpi=dpi)
    return Image.open(buffer)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Plot losses and loss weights of finished runs.")
    parser.add_argument("folders", metavar="OUTPUT_DIR", nargs="+", help="a finished run's folder")
    parser.add_argument("--output", type=Path, help="PNG file; default: OUTPUT_DIR/losses.png")
    parser.add_argument("--title", help="a line above the whole figure")
    args = parser.parse_args(arguments)
    output = args.output or Path(args.folders[0]) / "losses.png"
    try:
        figure = make_figure([load_run(folder) for folder in args.folders], args.title)
        save_png(lambda scale: rasterise(figure, 110 * scale), output)
    except (ToolError, OSError) as error:
        print("plot_losses:", *str(error).split(), file=sys.stderr)  # on one line
        return 2
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
