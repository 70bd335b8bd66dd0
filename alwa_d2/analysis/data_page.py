"""What `check-data` prints: the data sets of a config, their classes, and what was found."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from ..data.preflight import Report, Survey

MAX_CLASSES = 40  # in the table; of more, the most frequent and a few rare ones are shown
_RARE = 10


def page(report: Report) -> str:
    """The whole page, several lines."""
    parts = [_sets(report), _layouts(report), _classes(report), report.findings.page()]
    return "\n\n".join(part for part in [*parts, report.findings.verdict()] if part)


def total_counts(surveys: Sequence[Survey], classes: int) -> np.ndarray:
    """(classes,): boxes of each class in all the sets."""
    total = np.zeros(classes, np.int64)
    for survey in surveys:
        known = survey.counts[:classes]
        total[: len(known)] += known
    return total


def box_sides(survey: Survey) -> np.ndarray:
    """Square roots of the boxes' areas, pixels; those of no area left out."""
    sizes = survey.box_sizes[(survey.box_sizes > 0).all(axis=1)]
    return np.sqrt(sizes.prod(axis=1))


def share(part: int, whole: int) -> str:
    """Such as "12 (1.5 %)"."""
    return f"{part:,} ({100 * part / whole:.2g} %)" if whole and part else f"{part:,}"


def _sets(report: Report) -> str:
    rows = []
    for use, surveys in (("training", report.training), ("test", report.test)):
        for survey in surveys:
            empty = share(survey.empty, survey.images)
            boxes = [f"{survey.boxes:,}", survey.crowds, _span_of_boxes(survey)]
            images = [f"{survey.images:,}", empty, _span_of_images(survey)]
            rows.append([survey.name, use, *images, *boxes])
    header = ["data set", "used for", "images", "without box", "width x height"]
    header += ["boxes", "crowds", "box side, 5 to 95 %"]
    kinds = ["left", "left", "right", "right", "left", "right", "right", "left"]
    return tabulate(rows, header, colalign=kinds if rows else None, disable_numparse=True)


def _span_of_images(survey: Survey) -> str:
    if not survey.images:
        return ""
    low, high = survey.image_sizes.min(axis=0), survey.image_sizes.max(axis=0)
    first, last = ("{:g} x {:g}".format(*sizes) for sizes in (low, high))
    return first if first == last else f"{first} to {last}"


def _span_of_boxes(survey: Survey) -> str:
    sides = box_sides(survey)
    if not len(sides):
        return ""
    low, middle, high = np.percentile(sides, (5, 50, 95))
    return f"{low:.0f} to {high:.0f}, median {middle:.0f}"


def _layouts(report: Report) -> str:
    surveys = {survey.name: survey for survey in (*report.training, *report.test)}
    return "\n".join(f"{name}: {survey.layout}" for name, survey in surveys.items())


def _classes(report: Report) -> str:
    names = report.classes
    uses = {"training": report.training, "test": report.test}
    totals = {use: total_counts(sets, len(names)) for use, sets in uses.items() if sets}
    order = np.lexsort([np.arange(len(names)), *(-counts for counts in reversed(totals.values()))])
    rows = [[names[i], *(t for c in totals.values() for t in _counts(c, i))] for i in order]
    if len(rows) > MAX_CLASSES:
        hidden = len(rows) - MAX_CLASSES
        head, tail = rows[: MAX_CLASSES - _RARE], rows[-_RARE:]
        rows = [*head, [f"... {hidden} more ...", *[""] * 2 * len(totals)], *tail]
    header = ["class", *(title for use in totals for title in (use, "share"))]
    kinds = ["left", *["right"] * 2 * len(totals)]
    return tabulate(rows, header, colalign=kinds, disable_numparse=True) if rows else ""


def _counts(counts: np.ndarray, number: int) -> tuple[str, str]:
    whole = counts.sum()
    return f"{counts[number]:,}", f"{100 * counts[number] / whole:.1f} %" if whole else ""
