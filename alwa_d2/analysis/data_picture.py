"""A picture of a config's data sets: classes, sizes of images and boxes, and what was found."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from .._show import counted
from ..data.findings import ERROR, WARNING
from ..data.preflight import Report, Survey
from .curves import HUES
from .data_page import box_sides, share, total_counts
from .fonts import legend, stand_ins

MAX_CLASSES = 25  # bars that can be read
TRAINING, TEST = HUES[0], HUES[4]  # blue and orange
FAULTS = {ERROR: HUES[1], WARNING: "0.7"}
_MAX_KINDS = 12
_BINS = 30
_MARGIN = 1.5
_CLASS = "#"  # before the number that stands for a class whose name no font can draw
# Pixels a side: COCO's borders between small, medium and large, with the text at each and its
# side of the line.
_AREAS = {32: ("small < 32²", "right"), 96: ("large > 96²", "left")}


def draw(report: Report, title: str) -> Figure:
    """
    The picture as a figure of Matplotlib's.

    Args:
        report: what :func:`alwa_d2.data.preflight.check_data` found
        title: a line above it
    """
    rows = min(len(report.classes), MAX_CLASSES)
    figure = Figure(figsize=(13, max(8.0, 4.5 + 0.3 * rows)), layout="constrained")
    figure.suptitle(f"{title}\n{_totals(report)}", fontsize=12)
    grid = figure.add_gridspec(2, 2, height_ratios=(max(rows, 8), 10))
    _draw_classes(figure.add_subplot(grid[0, 0]), report)
    _draw_findings(figure.add_subplot(grid[0, 1]), report)
    images = figure.add_subplot(grid[1, 0])
    _draw_sizes(images, report, lambda survey: survey.image_sizes.max(axis=1), MAX_OF_IMAGE)
    boxes = figure.add_subplot(grid[1, 1])
    _draw_sizes(boxes, report, box_sides, SIDE_OF_BOX)
    _mark_areas(boxes)
    return figure


MAX_OF_IMAGE = ("Images by their longer side", "longer side of an image (pixels)", "images")
SIDE_OF_BOX = ("Boxes by size", "square root of a box's area (pixels)", "boxes")


def class_legend(report: Report) -> str:
    """What the picture's numbers stand for where no font has a class's letters; else ""."""
    return legend(report.classes, _CLASS)


def _uses(report: Report) -> list[tuple[str, Sequence[Survey], str]]:
    """(name, sets, colour) of what there is."""
    uses = [("training", report.training, TRAINING), ("test", report.test, TEST)]
    return [use for use in uses if use[1]]


def _totals(report: Report) -> str:
    texts = []
    for use, surveys, _ in _uses(report):
        images = sum(survey.images for survey in surveys)
        empty = share(sum(survey.empty for survey in surveys), images)
        boxes = sum(survey.boxes for survey in surveys)
        names = ", ".join(survey.name for survey in surveys)
        held = f"{counted(images, 'images')}, {empty} without box, {counted(boxes, 'boxes')}"
        texts.append(f"{use} ({names}): {held}")
    return "\n".join(texts)


def _draw_classes(axes, report: Report) -> None:
    names = report.classes
    totals = {use: total_counts(sets, len(names)) for use, sets, _ in _uses(report)}
    order = np.argsort(-next(iter(totals.values())), kind="stable") if totals else []
    shown = order if len(order) <= MAX_CLASSES else [*order[: MAX_CLASSES - 5], *order[-5:]]
    height = 0.8 / max(len(totals), 1)
    largest = max((int(counts.max(initial=0)) for counts in totals.values()), default=0)
    for index, (use, _, colour) in enumerate(_uses(report)):
        counts = totals[use][shown] if len(shown) else np.zeros(0, int)
        places = np.arange(len(shown)) + (index - (len(totals) - 1) / 2) * height
        axes.barh(places, counts, height, color=colour, label=use)
        for place, count in zip(places, counts):
            axes.annotate(
                f"{count:,}", (count, place), (3, 0), textcoords="offset points",
                va="center", fontsize=7, weight="normal" if count else "bold",
            )  # fmt: skip
    labels = stand_ins(names, _CLASS)
    axes.set_yticks(np.arange(len(shown)), [labels[i] for i in shown], parse_math=False)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)  # the first on top
    axes.set_xlim(0, max(1.15 * largest, 1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    left = f" ({len(names)} in all, the rarest last)" if len(shown) < len(names) else ""
    axes.set_title(f"Boxes of each class{left}")
    if len(totals) and len(shown):
        axes.legend(loc="lower right")


def _draw_findings(axes, report: Report) -> None:
    findings = report.findings
    kinds = [(kind, n) for severity in FAULTS for kind, n, _ in findings.of(severity)]
    axes.set_title(f"What was found: {report.findings.verdict()}")
    if not kinds:
        axes.text(0.5, 0.5, "nothing", ha="center", va="center", fontsize=14, color="0.4")
        axes.set_axis_off()
        return
    kinds = kinds[:_MAX_KINDS]
    for place, (kind, count) in enumerate(kinds):
        # The text stands over its bar, so that long names need no margin.
        axes.barh(place + 0.2, count, 0.3, color=FAULTS[kind.severity])
        text = f"{kind.severity}: {kind.name}"
        axes.text(0, place - 0.15, f" {text}", va="center", fontsize=9, transform=_row(axes))
        axes.annotate(
            f"{count:,}", (count, place + 0.2), (3, 0), textcoords="offset points",
            va="center", fontsize=9,
        )  # fmt: skip
    axes.set_ylim(max(len(kinds), 6) - 0.4, -0.6)
    axes.set_yticks([])
    largest = max(count for _, count in kinds)
    if largest > 50:  # a single one beside thousands has a bar, too
        axes.set_xscale("log")
        axes.set_xlim(0.5, 4 * largest)
    else:
        axes.set_xlim(0, 1.15 * largest)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _row(axes):
    """Coordinates: x as a share of the axes, y as the data has it."""
    return axes.get_yaxis_transform()


def _draw_sizes(axes, report: Report, sizes, words: tuple[str, str, str]) -> None:
    """Shares of images or boxes by size, training filled and test as a line over it."""
    title, label, what = words
    series = [
        (use, np.concatenate([sizes(survey) for survey in surveys]), colour)
        for use, surveys, colour in _uses(report)
    ]
    series = [(use, values[values > 0], colour) for use, values, colour in series]
    everything = np.concatenate([values for _, values, _ in series] or [np.zeros(0)])
    axes.set_title(title)
    axes.set_xlabel(label)
    axes.set_ylabel(f"share of {what} (%)")
    if not len(everything):
        return
    # A margin that leaves round numbers to mark where all are of one size.
    bins = np.geomspace(everything.min() / _MARGIN, everything.max() * _MARGIN, _BINS + 1)
    for index, (use, values, colour) in enumerate(series):
        weights = np.full(len(values), 100 / max(len(values), 1))
        style = dict(histtype="stepfilled", alpha=0.45) if index == 0 else dict(histtype="step")
        median = f", median {np.median(values):.0f}" if len(values) else ""
        style |= dict(lw=2, color=colour, label=f"{use}{median}")
        axes.hist(values, bins, weights=weights, **style)
    axes.set_yticks([share for share in axes.get_yticks() if 0 <= share <= 100])
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the legend
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(_ticks(bins[0], bins[-1]))
    axes.legend(loc="upper left")


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, about six."""
    steps = np.array([1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9])
    numbers = np.concatenate([steps * 10**power for power in range(-1, 6)])
    inside = [n for n in numbers if low <= n <= high]
    if len(inside) > 8:
        inside = [n for n in inside if f"{n:e}"[:3] in ("1.0", "2.0", "5.0")]
    return inside


def _mark_areas(axes) -> None:
    for side, (text, align) in _AREAS.items():
        low, high = axes.get_xlim()
        if _MARGIN * low < side < high / _MARGIN:  # among the boxes, with room for the text
            axes.axvline(side, color="0.45", lw=1, ls=":")
            axes.annotate(
                text, (side, 1), (3 if align == "left" else -3, -3), ha=align, va="top",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
                color="0.35",
            )  # fmt: skip
