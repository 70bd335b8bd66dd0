"""PASCAL VOC average precision for VOC data as it comes from labelling tools."""

import itertools
import logging
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from urllib.parse import quote, unquote

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation.pascal_voc_evaluation import voc_ap
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from ..data.findings import Findings
from ..data.voc_layout import find_layout
from ..data.voc_set import VOCSet
from ..detectron2_private import OpenVOCEvaluator

logger = logging.getLogger(__name__)

THRESHOLDS = range(50, 100, 5)  # IoU in percent: AP is the mean over these
NOT_UTF8 = "surrogateescape"  # what becomes of bytes in an id, a file's name, that are no text


@dataclass
class _Truth:
    """Ground truth of one class in all images."""

    boxes: dict[str, np.ndarray]  # image id -> (n, 4), as in the annotation files
    first: dict[str, int]  # image id -> number of its first box among all boxes of the class
    difficult: np.ndarray  # (all boxes,) bool: neither to be found nor wrong when found

    @property
    def count(self) -> int:
        return int((~self.difficult).sum())


class VOCEvaluator(OpenVOCEvaluator):
    """AP, AP50 and AP75 as Detectron2's VOC evaluator gives them, and each class's own.

    It differs in what it accepts: annotations without `pose`, `truncated` and `difficult`, float
    coordinates, image ids with spaces, a data set without `year` (2012 then, the area under the
    curve; 2007 takes 11 points). It leaves out the boxes that training leaves out (reversed, of
    zero area, outside of their image). Classes without an object that is to be found are left out
    of the means and named in the log; their own AP is NaN. It gathers from all processes, so all
    must call it.
    """

    def __init__(self, dataset_name: str):
        """`dataset_name` needs the metadata `thing_classes`, `dirname` and `split`.

        Nothing is read before `evaluate`, so the data set may be made in between.
        """
        metadata = MetadataCatalog.get(dataset_name)
        year = metadata.get("year", 2012)
        if year not in (2007, 2012):
            raise ValueError(f"{dataset_name}: year must be 2007 or 2012, got {year!r}")
        self._name = dataset_name
        self._source = metadata.get("source")  # of DATASETS.REGISTER
        self._root, self._split = metadata.dirname, metadata.split
        self._classes = list(metadata.thing_classes)
        self._takes_11_points = year == 2007
        super().__init__()

    def process(self, inputs, outputs):
        # The parent keeps lines of words, rounded as VOC's result files are; ids lose their spaces.
        ids = [quote(str(item["image_id"]), safe="", errors=NOT_UTF8) for item in inputs]
        super().process([{"image_id": image_id} for image_id in ids], outputs)

    def evaluate(self):
        """{"bbox": {"AP", "AP50", "AP75", "AP-<class>", "AP50-<class>", ...}} in percent on the
        main process, None on others."""
        gathered = comm.gather(dict(self.predictions), dst=0)
        if not comm.is_main_process():
            return None
        lines = defaultdict(list)
        for class_id, part in itertools.chain.from_iterable(rank.items() for rank in gathered):
            lines[class_id].extend(part)
        truths = self._read_truths()
        aps = np.array(
            [
                _average_precisions(truth, lines[class_id], self._takes_11_points)
                for class_id, truth in enumerate(truths)
            ]
        )  # (classes, thresholds), NaN for a class without ground truth
        self._log_classes_without_truth(truths)
        result = self._summarize(100 * aps)
        self._log_tables(result)
        return OrderedDict(bbox=result)

    def _read_truths(self) -> list[_Truth]:
        """Each class's ground truth, in the order of classes."""
        source, left = self._source, Findings()
        if source is None:
            layout = find_layout(PathManager.get_local_path(self._root))
            source = VOCSet(self._name, layout, self._split, None, tuple(self._classes))
        boxes = [defaultdict(list) for _ in self._classes]
        ids = {name: number for number, name in enumerate(self._classes)}
        for image in source.images(needs_file=False):
            # Objects of other classes are no error here, as in Detectron2's evaluator.
            for obj in source.objects(image, left, Findings()):
                boxes[ids[obj.name]][image.image_id].append((*obj.box, obj.difficult))
        if left.counts:
            logger.info(f"{self._name}: left out of the evaluation: {left.summary()}")
        return [_collect(of_class) for of_class in boxes]

    def _summarize(self, aps: np.ndarray) -> dict[str, float]:
        """Means over thresholds and classes of `aps` (classes, thresholds), and each class's."""
        has_truth = ~np.isnan(aps[:, 0])
        mean = aps[has_truth].mean(axis=0) if has_truth.any() else np.full(len(THRESHOLDS), np.nan)
        at = {threshold: column for column, threshold in enumerate(THRESHOLDS)}
        result = {"AP": mean.mean(), "AP50": mean[at[50]], "AP75": mean[at[75]]}
        for name, row in zip(self._classes, aps):
            result[f"AP-{name}"] = row.mean()
            result[f"AP50-{name}"] = row[at[50]]
            result[f"AP75-{name}"] = row[at[75]]
        return {key: float(value) for key, value in result.items()}

    def _log_classes_without_truth(self, truths: list[_Truth]) -> None:
        missing = [name for name, truth in zip(self._classes, truths) if not truth.count]
        if len(missing) == len(truths):
            logger.warning(f"{self._name}: no class has an object to be found, so AP is NaN")
        elif missing:
            logger.warning(
                f"{self._name}: no object to be found of {', '.join(missing)}; left out of "
                "the means"
            )

    def _log_tables(self, result: dict[str, float]) -> None:
        means = {key: result[key] for key in ("AP", "AP50", "AP75")}
        year = 2007 if self._takes_11_points else 2012
        logger.info(
            f"Evaluation of {self._name} for bbox, VOC {year} metric:\n" + create_small_table(means)
        )
        rows = [(name, *(result[f"{key}-{name}"] for key in means)) for name in self._classes]
        table = tabulate(rows, headers=["category", *means], tablefmt="pipe", floatfmt=".3f")
        logger.info("Per-category bbox AP:\n" + table)


def _collect(boxes: dict[str, list[tuple]]) -> _Truth:
    """The ground truth of a class from image id -> [(xmin, ymin, xmax, ymax, difficult)]."""
    arrays = {image_id: np.array(rows, dtype=float) for image_id, rows in boxes.items()}
    starts = np.cumsum([0, *(len(array) for array in arrays.values())])
    difficult = [array[:, 4] != 0 for array in arrays.values()]
    return _Truth(
        boxes={image_id: array[:, :4] for image_id, array in arrays.items()},
        first=dict(zip(arrays, starts.tolist())),
        difficult=np.concatenate(difficult) if difficult else np.zeros(0, dtype=bool),
    )


def _average_precisions(truth: _Truth, lines: list[str], is_2007: bool) -> np.ndarray:
    """(thresholds,) AP in 0..1 of one class's predictions `lines`, NaN without ground truth."""
    if truth.count == 0:
        return np.full(len(THRESHOLDS), np.nan)
    words = [line.split(" ") for line in lines]
    numbers = np.array([word[1:] for word in words], dtype=float).reshape(-1, 5)
    # Not a stable sort: equal scores, many after rounding, are to be in Detectron2's order.
    order = np.argsort(-numbers[:, 0])
    ids = [unquote(words[i][0], errors=NOT_UTF8) for i in order]
    iou, match = _best_matches(truth, ids, numbers[order, 1:])
    return np.array([_ap(truth, iou > t / 100.0, match, is_2007) for t in THRESHOLDS])


def _best_matches(
    truth: _Truth, image_ids: list[str], boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each prediction's highest IoU with a box of its image, and that box's number, both (n,).

    The IoU is -inf where the image has none of this class.
    """
    iou = np.full(len(boxes), -np.inf)
    match = np.zeros(len(boxes), dtype=int)
    of_image = defaultdict(list)
    for number, image_id in enumerate(image_ids):
        of_image[image_id].append(number)
    for image_id, numbers in of_image.items():
        if image_id in truth.boxes:
            overlaps = _pairwise_iou(boxes[numbers], truth.boxes[image_id])
            iou[numbers] = overlaps.max(axis=1)
            match[numbers] = overlaps.argmax(axis=1) + truth.first[image_id]
    return iou, match


def _pairwise_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) IoU of boxes (n, 4) and (m, 4) whose last pixels belong to them: xmax - xmin + 1."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(high - low + 1.0, 0.0).prod(axis=2)
    area_a, area_b = ((x[:, 2:] - x[:, :2] + 1.0).prod(axis=1) for x in (a, b))
    return common / (area_a[:, None] + area_b[None, :] - common)


def _ap(truth: _Truth, hit: np.ndarray, match: np.ndarray, is_2007: bool) -> float:
    """AP in 0..1 of predictions in the order of their scores; `hit` (n,) bool, `match` (n,)."""
    # A difficult object makes a prediction neither right nor wrong; of several that hit another
    # object the first is right, the rest are wrong.
    counted = np.flatnonzero(hit)
    counted = counted[~truth.difficult[match[counted]]]
    right = np.zeros(len(hit))
    right[counted[np.unique(match[counted], return_index=True)[1]]] = 1.0
    wrong = (~hit).astype(float)
    wrong[counted] = 1.0 - right[counted]
    found, errors = np.cumsum(right), np.cumsum(wrong)
    precision = found / np.maximum(found + errors, np.finfo(np.float64).eps)
    return voc_ap(found / truth.count, precision, is_2007)
