"""Two runs' detections side by side, at equal recall over the whole data set."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from detectron2.data import MetadataCatalog

from ..engine import setup_cfg
from ..errors import UserError
from .detections import load_samples, spread
from .equal_recall import common_recall, curve_of, false_positive_table
from .pictures import save_png
from .runs import short_name
from .sheet import COLOURS, TILE, Sample, make_comparison

SCORE = 0.5  # of the detections shown where no recall decides


def load_run_samples(
    folder: str, dataset: str | None, count: int, opts: Sequence[str]
) -> tuple[str, list[Sample]]:
    """The test set's name and all of its images with a run's detections, whatever their scores."""
    config, weights = (Path(folder, name) for name in ("config.yaml", "model_final.pth"))
    for path in (config, weights):
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected the folder of a finished run")
    cfg = setup_cfg(str(config), [*opts, "MODEL.WEIGHTS", str(weights)])
    name = dataset or next(iter(cfg.DATASETS.TEST), "")
    return name, load_samples(cfg, name, count, 0.0, whole=True)


def compare_detections(
    folders: tuple[str, str],
    output: Path | None = None,
    dataset: str | None = None,
    count: int = 8,
    score: float | None = None,
    opts: Sequence[str] = (),
) -> Path:
    """Draws two runs' detections side by side and prints their false positives; returns where.

    Args:
        folders: of the two finished runs
        output: the PNG file; by default comparison.png in the first folder
        dataset: by default the first of DATASETS.TEST, which has to be the same in both
        count: number of images drawn
        score: at which the lower recall is taken; by default recall 0.5, or what both reach
        opts: KEY, VALUE, ... for both configs
    """
    (name, first), (other, second) = (
        load_run_samples(folder, dataset, count, opts) for folder in folders
    )
    if name != other:
        raise UserError(f"the runs' test sets are {name} and {other}; give one --dataset")
    curves = [curve_of(samples) for samples in (first, second)]
    names = [short_name(Path(run).resolve().name) for run in folders]
    labels = [f"{letter} {name}" for letter, name in zip("AB", names)]
    recall = common_recall(curves, score)
    print(f"{name}: {len(first)} images, {curves[0].truths} boxes")
    print(false_positive_table(curves, labels, recall))
    points = [curve.at(recall) if recall else None for curve in curves]
    lowest = SCORE if score is None else score
    limits = [point[0] if point else lowest for point in points]
    titles = [f"{label}, >= {limit:.2f}" for label, limit in zip(labels, limits)]
    rows = []
    for index in spread(len(first), count):
        row = zip((first[index], second[index]), limits)
        rows.append([replace(s, found=s.found[s.found.scores >= limit]) for s, limit in row])
    title = f"{name}: {len(rows)} of {len(first)} images, both at recall {recall:.3f} over all"
    if all(points):
        title += f"; false positives over all: A {points[0][1]}, B {points[1][1]}"
    classes = MetadataCatalog.get(name).get("thing_classes", [])
    output = output or Path(folders[0], "comparison.png")
    draw = partial(make_comparison, rows, titles, classes, title)
    save_png(lambda s: draw(round(TILE * s)), output, COLOURS)
    return output
