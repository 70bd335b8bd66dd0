"""Two runs' detections side by side, at equal recall over the whole data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from .._show import counted
from ..data.register import registered_for_now
from ..engine import setup_cfg
from ..errors import UserError
from .detections import load_samples
from .equal_recall import Curve, common_recall, curve_of, false_positive_table
from .images import spread
from .matching import Sample
from .sheet import TILE, legends, make_comparison
from .titles import short_name

SCORE = 0.5  # of the detections shown where no recall decides


@dataclass(frozen=True)
class Comparison:
    """Two detectors' detections on one data set, to be shown at equal recall."""

    dataset: str
    classes: list[str]  # names, by the class numbers of the samples
    labels: list[str]  # of the two detectors
    samples: list[list[Sample]]  # of each of them: all images, with all detections
    shown: list[int]  # indices of the images that are drawn
    score: float | None  # at which the lower recall is taken; None: recall 0.5, or what both reach

    @cached_property
    def curves(self) -> list[Curve]:
        """False positives over recall, of each detector."""
        return [curve_of(samples) for samples in self.samples]

    @cached_property
    def recall(self) -> float:
        """At which detections are shown; 0 if a detector finds nothing."""
        return common_recall(self.curves, self.score)

    @cached_property
    def points(self) -> list[tuple[float, int] | None]:
        """(threshold, false positives) of each detector at `recall`, None for recall 0."""
        return [curve.at(self.recall) if self.recall else None for curve in self.curves]

    def report(self) -> str:
        """The size of the data set, and the table of false positives."""
        images, boxes = len(self.samples[0]), self.curves[0].truths
        head = f"{self.dataset}: {counted(images, 'images')}, {counted(boxes, 'boxes')}"
        return f"{head}\n{false_positive_table(self.curves, self.labels, self.recall)}"

    def draw(self, scale: float = 1.0) -> Image.Image:
        """The sheet of the chosen images, each with its ground truth and both detectors' boxes."""
        lowest = SCORE if self.score is None else self.score
        limits = [point[0] if point else lowest for point in self.points]
        rows = []
        for index in self.shown:
            row = zip((samples[index] for samples in self.samples), limits)
            rows.append([replace(s, found=s.found[s.found.scores >= limit]) for s, limit in row])
        title = f"{self.dataset}: {len(rows)} of {counted(len(self.samples[0]), 'images')}, "
        title += f"both at recall {self.recall:.3f} over all"
        if all(self.points):
            first, second = (point[1] for point in self.points)
            title += f"; false positives over all: A {first}, B {second}"
        titles = [f"{label}, >= {limit:.2f}" for label, limit in zip(self.labels, limits)]
        return make_comparison(rows, titles, self.classes, title, round(TILE * scale))

    def legend(self) -> str:
        """What numbers in the picture stand for where no font has a name's letters; else ""."""
        shown = [self.samples[0][index] for index in self.shown]
        return legends(shown, self.classes)


def load_run_samples(
    folder: str, dataset: str | None, count: int, opts: Sequence[str]
) -> tuple[str, list[str], list[Sample]]:
    """The test set's name, its classes, and all of its images with a run's detections, whatever
    their scores. The data sets of the run's config are known inside alone: those of another run may
    have the same names."""
    config, weights = (Path(folder, name) for name in ("config.yaml", "model_final.pth"))
    for path in (config, weights):
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected the folder of a finished run")
    with registered_for_now():
        cfg = setup_cfg(str(config), [*opts, "MODEL.WEIGHTS", str(weights)])
        name = dataset or next(iter(cfg.DATASETS.TEST), "")
        samples = load_samples(cfg, name, count, 0.0, whole=True)
        return name, list(MetadataCatalog.get(name).get("thing_classes", [])), samples


def _check_same_data(first: Sequence[Sample], second: Sequence[Sample], name: str) -> None:
    """Refuses two data sets of one name with other images or other ground truth."""
    differing = (a.name for a, b in zip(first, second) if not _same_truth(a, b))
    image = next(differing, None)
    if len(first) != len(second):
        raise UserError(
            f"the runs' test sets {name} differ: {counted(len(first), 'images')} and "
            f"{len(second):,}; expected the same images and boxes"
        )
    if image is not None:
        raise UserError(
            f"the runs' test sets {name} differ, first in image {image}; expected the same images "
            "and boxes"
        )


def _same_truth(a: Sample, b: Sample) -> bool:
    boxes, classes = ([getattr(s.truth, k) for s in (a, b)] for k in ("gt_boxes", "gt_classes"))
    return (
        a.name == b.name and torch.equal(boxes[0].tensor, boxes[1].tensor) and torch.equal(*classes)
    )


def compare_detections(
    folders: tuple[str, str],
    dataset: str | None = None,
    count: int = 8,
    score: float | None = None,
    opts: Sequence[str] = (),
) -> Comparison:
    """Two runs' detections on all images of a data set.

    Args:
        folders: of the two finished runs
        dataset: by default the first of DATASETS.TEST, which has to be the same in both; the
            training sets may differ
        count: number of images to be drawn
        score: at which the lower recall is taken; by default recall 0.5, or what both reach
        opts: KEY, VALUE, ... for both configs

    Raises:
        UserError: a folder lacks a file, or the test sets are not the same
    """
    (name, classes, first), (other, others, second) = (
        load_run_samples(folder, dataset, count, opts) for folder in folders
    )
    if name != other:
        raise UserError(f"the runs' test sets are {name} and {other}; give one --dataset")
    if classes != others:
        raise UserError(f"the runs' test sets {name} differ: classes {classes} and {others}")
    _check_same_data(first, second, name)
    runs = (short_name(Path(folder).resolve().name) for folder in folders)
    labels = [f"{letter} {run}" for letter, run in zip("AB", runs)]
    return Comparison(name, classes, labels, [first, second], spread(len(first), count), score)
