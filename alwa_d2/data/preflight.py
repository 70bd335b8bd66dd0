"""A look at all data sets of a config before they are used: what is there, and what is wrong.

Annotations are read as training reads them, and the header of every image. What is found, errors
and warnings, stands in a :class:`Report`; nothing is raised for broken data.
"""

import inspect
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from .._show import counted
from .box_checks import Boxes, check_boxes, check_coordinates, collect_boxes
from .coco_shapes import visible
from .collector import collector_paused
from .deep_colour import check_range
from .findings import ERROR, REVERSED, WARNING, Findings, Kind, left_out
from .image_headers import Header, Reading, mode_of, read_headers
from .model_needs import check_keypoint_settings, check_objects

UNREADABLE_SET = Kind("data sets that cannot be read", ERROR, "correct what the message names")
OTHER_SIZE = Kind(
    "images of another size than annotated", ERROR,
    "correct width and height, or put the image there that the boxes were drawn on",
)  # fmt: skip
STORED_SIZE = Kind(
    "images turned by EXIF, annotations not turned", ERROR,
    "Detectron2 reads them turned: take the Orientation tag out (exiftool -Orientation= FILE) or "
    "annotate the turned image",
)  # fmt: skip
TURNED = Kind(
    "images turned by EXIF", WARNING, "see that their boxes were drawn on the turned image"
)
TWICE = Kind("images given twice", WARNING, "keep one, with the objects of both")
ALIKE = Kind(
    "names equal except for capitals or Unicode form", WARNING,
    "rename one: on other machines they are one file",
)  # fmt: skip
SHARED = Kind(
    "test images in training, too", WARNING,
    "take them out of one: AP is measured on what was learnt by heart",
)  # fmt: skip
UNTRAINED = Kind("classes without a box in training", WARNING, "they will never be found")
NOTHING_TO_TRAIN = Kind(
    "training runs without a usable box", ERROR,
    "give DATASETS.TRAIN images with boxes, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS False",
)  # fmt: skip
TOO_FEW_POINTS = Kind(
    "training runs without an image of enough keypoints", ERROR,
    "label more, or lower MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE",
)  # fmt: skip
NOTHING_TO_TEST = Kind("test sets without a usable box", WARNING, "AP will be 0 or not a number")


@dataclass
class Survey:
    """What one data set holds. Sizes are (width, height) in pixels."""

    name: str
    layout: str
    classes: list[str]
    images: int = 0
    empty: int = 0  # images without a box that is no crowd
    most_points: int = 0  # labelled keypoints of the image, among those trained on, with the most
    crowds: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # boxes by class
    image_sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (N, 2)
    box_sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (M, 2), no crowds
    files: dict[tuple, str] = field(default_factory=dict)  # identity of an image -> its name
    findings: Findings = field(default_factory=Findings)

    @property
    def boxes(self) -> int:
        """How many boxes there are, without crowds."""
        return len(self.box_sizes)


@dataclass
class Report:
    """The surveys of a config's training and test sets, and all that was found."""

    training: list[Survey]
    test: list[Survey]
    findings: Findings

    @property
    def classes(self) -> list[str]:
        """The classes' names, [] if no data set has any."""
        return next((s.classes for s in (*self.training, *self.test) if s.classes), [])


def check_data(
    cfg: CfgNode,
    *,
    training: bool = True,
    decode: bool = False,
    progress: bool = False,
) -> Report:
    """
    Reads all data sets of a config, annotations and image headers, and says what is wrong.

    Args:
        cfg: with data sets that are registered, as :func:`alwa_d2.engine.setup_cfg` gives it
        training: whether DATASETS.TRAIN is looked at too, and not DATASETS.TEST alone
        decode: whether every image is decoded, about a millisecond for one of 500 x 375 pixels;
            finds those that are cut off in any format, and the same content under two names
        progress: whether a bar is shown where someone watches
    """
    names = list(cfg.DATASETS.TRAIN) if training else []
    roles = {name: name in names for name in (*names, *cfg.DATASETS.TEST)}
    reading = Reading(mode_of(cfg.INPUT.FORMAT), decode, cfg.INPUT.LOAD_TRUNCATED)
    surveys = {
        name: _survey(cfg, name, is_training, reading, progress)
        for name, is_training in roles.items()
    }
    report = Report(
        [surveys[name] for name in dict.fromkeys(names)],
        [surveys[name] for name in dict.fromkeys(cfg.DATASETS.TEST)],
        Findings(),
    )
    for survey in surveys.values():
        report.findings.update(survey.findings)
    if training:
        check_keypoint_settings(cfg, report.findings)
        _check_training(cfg, report)
    for survey in report.test:
        if survey.images and not survey.boxes:
            text = f"{counted(survey.images, 'images')}, {counted(survey.crowds, 'crowds')}"
            report.findings.add(NOTHING_TO_TEST, survey.name, "", text)
    return report


def _load(name: str, findings: Findings) -> list[dict]:
    """The records of a data set; errors are added, as many as its reader can tell at once."""
    reader = DatasetCatalog[name]
    try:
        if "findings" in inspect.signature(reader).parameters:
            records = reader(findings=findings)
        else:
            records = reader()
            findings.update(left_out(name))
    except Exception as error:  # a reader of the user's own may raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        findings.add(UNREADABLE_SET, name, "", text)
        return []
    return records if isinstance(records, list) else []  # PyTorch's Dataset: not looked at


@collector_paused()
def _survey(cfg: CfgNode, name: str, training: bool, reading: Reading, progress: bool) -> Survey:
    metadata = MetadataCatalog.get(name)
    findings = Findings()
    records = _load(name, findings)
    classes = list(metadata.get("thing_classes") or ())
    survey = Survey(name, layout_of(name), classes, len(records), findings=findings)
    headers = read_headers([record["file_name"] for record in records], reading)
    bar = tqdm(headers, name, len(records), leave=False, disable=None if progress else True)
    sizes, high_bytes = [], []
    for record, header in zip(records, bar, strict=True):
        _check_image(survey, record, header)
        high_bytes.append(header.high_byte)
        size = header.size or (0, 0)
        sizes.append((record.get("width", size[0]), record.get("height", size[1])))
    check_range(name, high_bytes, findings)
    _check_names(survey, records)
    survey.image_sizes = np.array(sizes, np.float64).reshape(-1, 2)
    boxes = collect_boxes(records, sizes)
    check_boxes(boxes, records, classes, findings)
    check_coordinates(boxes, name, findings.counts.get(REVERSED, 0), findings)
    check_objects(cfg, name, records, training, findings)
    _count(survey, boxes)
    if training and cfg.MODEL.KEYPOINT_ON:
        survey.most_points = _most_points(cfg, records, boxes)
    return survey


def layout_of(name: str) -> str:
    """In a few words how a data set is laid out, such as "VOC, data/mine"; its reader may have a
    method `describe` that says it."""
    describe = getattr(DatasetCatalog[name], "describe", None)
    if describe is not None:
        return describe()
    metadata = MetadataCatalog.get(name)
    kind = {"pascal_voc": "VOC", "coco": "COCO"}.get(metadata.get("evaluator_type"), "own reader")
    place = metadata.get("json_file") or metadata.get("dirname") or ""
    return f"{kind}, {place}" if place else kind


def _check_image(survey: Survey, record: dict, header: Header) -> None:
    path, findings = record["file_name"], survey.findings
    for kind, text in header.faults:
        findings.add(kind, path, "", text)
    if header.size is None:
        return
    size = tuple(record.get(key, side) for key, side in zip(("width", "height"), header.size))
    text = "{} x {} annotated, {} x {} read".format(*size, *header.size)
    if size != header.size:
        stored = header.turned and size == header.size[::-1]
        findings.add(STORED_SIZE if stored else OTHER_SIZE, path, "", text)
    elif header.orientation != 1:
        findings.add(TURNED, path, "", f"orientation {header.orientation}; {text}")
    where = f"image id {record.get('image_id')}"
    if header.identity in survey.files:
        findings.add(TWICE, path, where, f"the same as {survey.files[header.identity]}")
    else:
        survey.files[header.identity] = f"{path}, {where}"


def _check_names(survey: Survey, records: Sequence[dict]) -> None:
    paths = dict.fromkeys(record["file_name"] for record in records)
    seen: dict[str, str] = {}
    for path in paths:
        first = seen.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if first != path:
            survey.findings.add(ALIKE, path, "", f"beside {first}")


def _count(survey: Survey, boxes: Boxes) -> None:
    kept = ~boxes.crowd
    known = boxes.classes[kept & (boxes.classes >= 0)]
    survey.counts = np.bincount(known, minlength=len(survey.classes))
    survey.box_sizes = boxes.sides[kept]
    survey.crowds = int(boxes.crowd.sum())
    survey.empty = survey.images - len(np.unique(boxes.owner[kept]))


def _most_points(cfg: CfgNode, records: Sequence[dict], boxes: Boxes) -> int:
    """Labelled keypoints of the image that has the most, of those that training keeps."""
    kept = range(len(records))
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        kept = np.unique(boxes.owner[~boxes.crowd])
    groups = (records[number].get("annotations", ()) for number in kept)
    counts = (sum(visible(item.get("keypoints") or ()) for item in group) for group in groups)
    return max(counts, default=0)


def _check_training(cfg: CfgNode, report: Report) -> None:
    """Adds what only all sets together show."""
    sets, findings = report.training, report.findings
    _check_something_to_train_on(cfg, sets, findings)
    seen: dict[tuple, str] = {}
    for survey in sets:
        for identity in survey.files.keys() & seen.keys():
            text = f"in {survey.name}; also in {seen[identity]}"
            findings.add(TWICE, survey.files[identity], "", text)
        seen.update(dict.fromkeys(survey.files, survey.name))
    for survey in report.test:
        for identity, path in survey.files.items():
            if identity in seen:
                findings.add(SHARED, path, "", f"in {survey.name}; also in {seen[identity]}")
    _check_classes(report)


def _check_something_to_train_on(cfg: CfgNode, sets: Sequence[Survey], findings: Findings) -> None:
    """Adds a training of which Detectron2's filters leave no image."""
    images, left = sum(survey.images for survey in sets), Findings()
    for survey in sets:
        left.update(left_out(survey.name))
    crowds = counted(sum(survey.crowds for survey in sets), "crowds")
    found, names = counted(images, "images"), ", ".join(survey.name for survey in sets)
    why = f"({crowds}; left out: {left.summary()})"
    needed = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    filters = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    if images and filters and sum(survey.empty for survey in sets) == images:
        findings.add(NOTHING_TO_TRAIN, names, "", f"{found}, no box that is no crowd {why}")
    elif images and (most := max(survey.most_points for survey in sets)) < needed:
        text = f"{found}, none with {counted(needed, 'labelled keypoints')}, at most {most} {why}"
        findings.add(TOO_FEW_POINTS, names, "", text)


def nothing_to_train_on(cfg: CfgNode) -> str | None:
    """Why training has no image, for where this was not looked at before; None if it has some."""
    sets = cfg.clone()
    sets.defrost()
    sets.DATASETS.TEST = ()
    first = check_data(sets).findings.first
    return next(
        (str(first[kind][0]) for kind in (NOTHING_TO_TRAIN, TOO_FEW_POINTS) if kind in first), None
    )


def _check_classes(report: Report) -> None:
    """Adds the classes that no training set has a box of, where the sets could be read."""
    if not any(survey.boxes for survey in report.training):
        return
    for number, name in enumerate(report.classes):
        trained, tested = (
            sum(int(survey.counts[number]) for survey in sets if number < len(survey.counts))
            for sets in (report.training, report.test)
        )
        if not trained:
            where = f"class {number} ({name})"
            sets = ", ".join(survey.name for survey in report.training)
            text = f"{counted(tested, 'boxes')} in test, none in training"
            report.findings.add(UNTRAINED, sets, where, text)
