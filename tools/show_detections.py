"""A sheet of test images: ground truth, and beside it what a trained detector finds.

    python tools/show_detections.py --config-file CONFIG [--output FILE] [--num-images 8]
        [--score-thresh SCORE] [--dataset NAME] MODEL.WEIGHTS FILE [KEY VALUE ...]
    python tools/show_detections.py --compare RUN_A RUN_B [--output FILE] [...] [KEY VALUE ...]

Writes `detections.png` into the config's OUTPUT_DIR. Detections that match a box of the ground
truth are told apart from those that do not, and boxes that none matches are marked as missed.
With --compare two runs' detections stand side by side in RUN_A's `comparison.png`, at equal recall,
and a table has the false positives of both over the whole data set.
"""

import argparse
import os
import pickle
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, BoxMode, Instances
from equal_recall import RECALLS, common_recall, curve_of, false_positive_table
from pictures import png_path, save_png
from runs import ToolError, short_name
from sheet import BLACK, STYLES, TILE, Sample, make_comparison, make_sheet
from tqdm import tqdm

SCORE = 0.5  # of the detections shown of one model
COLOURS = (BLACK, *(style.colour for style in STYLES))


def spread(total: int, count: int) -> list[int]:
    """`count` of the indices 0..total - 1, evenly spread, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})


def truth_of(record: dict, size: tuple[int, int]) -> Instances:
    """The boxes of a data set's record, crowds left out."""
    objects = [item for item in record.get("annotations", []) if not item.get("iscrowd", 0)]
    boxes = [BoxMode.convert(o["bbox"], o["bbox_mode"], BoxMode.XYXY_ABS) for o in objects]
    classes = torch.tensor([o["category_id"] for o in objects], dtype=torch.int64)
    return Instances(size, gt_boxes=Boxes(torch.tensor(boxes)), gt_classes=classes)


def load_samples(
    cfg: CfgNode, name: str, count: int, score: float, whole: bool = False
) -> list[Sample]:
    """`count` images of a data set with the model's detections of at least `score`.

    If `whole`, all images' detections are there, but pixels of `count` of them only: (0, 0, 3).
    """
    if name not in DatasetCatalog:
        known = ", ".join(cfg.DATASETS.TEST) or "empty"
        raise ToolError(f"data set {name!r} is not registered; DATASETS.TEST is {known}")
    weights = cfg.MODEL.WEIGHTS
    if not weights or ("://" not in weights and not os.path.isfile(weights)):
        raise ToolError(f"MODEL.WEIGHTS: expected a checkpoint, got {weights!r}, which is no file")
    records = DatasetCatalog.get(name)
    try:
        predictor = DefaultPredictor(cfg)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).split(". ")[0]  # PyTorch goes on for a paragraph
        raise ToolError(f"MODEL.WEIGHTS: {weights} cannot be loaded: {reason}") from error
    chosen = spread(len(records), count)
    samples = []
    for index in progress(range(len(records)) if whole else chosen):
        sample = detect(predictor, records[index], score)
        if index not in chosen:
            sample = replace(sample, image=sample.image[:0, :0].copy())
        samples.append(sample)
    return samples


def progress(numbers: Iterable[int]) -> Iterable[int]:
    """The numbers, with a bar where someone watches."""
    return tqdm(numbers, "images", leave=False, disable=None)


def detect(predictor, record: dict, score: float) -> Sample:
    """One record's image, ground truth and detections."""
    image = read_image(record["file_name"], "BGR")  # what the predictor takes
    found = predictor(image)["instances"].to("cpu")
    found = found[found.scores >= score]
    truth = truth_of(record, image.shape[:2])
    rgb = np.ascontiguousarray(image[:, :, ::-1])
    return Sample(str(record["image_id"]), rgb, truth, found)


def lowest_score(args: argparse.Namespace) -> float:
    """Of the detections that are shown, where no recall decides."""
    return SCORE if args.score_thresh is None else args.score_thresh


def show(args: argparse.Namespace, setup_cfg) -> Path:
    """Draws one model's detections; returns where."""
    cfg = setup_cfg(args.config_file, args.opts)
    name = args.dataset or next(iter(cfg.DATASETS.TEST), "")
    score = lowest_score(args)
    samples = load_samples(cfg, name, args.num_images, score)
    title = f"{name}: {len(samples)} images, detections scored {score:g} or more"
    names = MetadataCatalog.get(name).get("thing_classes", [])
    output = args.output or Path(cfg.OUTPUT_DIR, "detections.png")
    save_png(lambda s: make_sheet(samples, names, title, round(TILE * s)), output, COLOURS)
    return output


def load_run_samples(folder: str, args: argparse.Namespace, setup_cfg) -> tuple[str, list[Sample]]:
    """The test set's name and all of its images with a run's detections, whatever their scores."""
    config, weights = (Path(folder, name) for name in ("config.yaml", "model_final.pth"))
    for path in (config, weights):
        if not path.is_file():
            raise ToolError(f"{path}: no such file; expected the folder of a finished run")
    cfg = setup_cfg(str(config), [*args.opts, "MODEL.WEIGHTS", str(weights)])
    name = args.dataset or next(iter(cfg.DATASETS.TEST), "")
    return name, load_samples(cfg, name, args.num_images, 0.0, whole=True)


def compare(args: argparse.Namespace, setup_cfg) -> Path:
    """Draws two runs' detections side by side and prints their false positives; returns where."""
    (name, first), (other, second) = (
        load_run_samples(folder, args, setup_cfg) for folder in args.compare
    )
    if name != other:
        raise ToolError(
            f"--compare: the runs' test sets are {name} and {other}; give one --dataset"
        )
    curves = [curve_of(samples) for samples in (first, second)]
    folders = [short_name(Path(run).resolve().name) for run in args.compare]
    labels = [f"{letter} {folder}" for letter, folder in zip("AB", folders)]
    recall = common_recall(curves, args.score_thresh)
    print(f"{name}: {len(first)} images, {curves[0].truths} boxes")
    print(false_positive_table(curves, labels, recall))
    points = [curve.at(recall) if recall else None for curve in curves]
    limits = [point[0] if point else lowest_score(args) for point in points]
    titles = [f"{label}, >= {limit:.2f}" for label, limit in zip(labels, limits)]
    rows = []
    for index in spread(len(first), args.num_images):
        row = zip((first[index], second[index]), limits)
        rows.append([replace(s, found=s.found[s.found.scores >= limit]) for s, limit in row])
    title = f"{name}: {len(rows)} of {len(first)} images, both at recall {recall:.3f} over all"
    if all(points):
        title += f"; false positives over all: A {points[0][1]}, B {points[1][1]}"
    names = MetadataCatalog.get(name).get("thing_classes", [])
    output = args.output or Path(args.compare[0], "comparison.png")
    draw = partial(make_comparison, rows, titles, names, title)
    save_png(lambda s: draw(round(TILE * s)), output, COLOURS)
    return output


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw detections beside the ground truth.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", help="the run's config")
    both = "two finished runs, side by side, with a table of false positives at equal recall"
    what.add_argument("--compare", nargs=2, metavar=("RUN_A", "RUN_B"), help=both)
    where = "PNG file; default: detections.png in OUTPUT_DIR, or comparison.png in RUN_A"
    parser.add_argument("--output", type=png_path, help=where)
    parser.add_argument("--num-images", type=int, default=8, help="evenly spread; default: 8")
    score = (
        f"lowest score shown; default: {SCORE}. With --compare the score at which the lower recall "
        f"is taken; default: recall {RECALLS[0]}, or what both reach"
    )
    parser.add_argument("--score-thresh", type=float, metavar="SCORE", help=score)
    parser.add_argument("--dataset", metavar="NAME", help="default: the first of DATASETS.TEST")
    opts = dict(metavar="KEY VALUE", nargs=argparse.REMAINDER, default=[])
    parser.add_argument("opts", **opts, help="settings as train_net.py takes them; they come last")
    args = parser.parse_args(arguments)
    if args.num_images < 1:
        parser.error(f"--num-images: expected at least 1, got {args.num_images}")
    return args


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    # As for train_net.py, a checkout is enough. Late, since drawing serves without the extension.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from alwa_d2.engine import setup_cfg

    try:
        output = (compare if args.compare else show)(args, setup_cfg)
    except (ToolError, OSError, ValueError, KeyError, AssertionError) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        print("show_detections:", *str(message).split(), file=sys.stderr)
        return 2
    print(f"wrote {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
