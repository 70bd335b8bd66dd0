"""Masks and keypoints that a config's model asks of its data sets."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from .._show import counted
from .findings import ERROR, Findings, Kind

NO_MASK = Kind(
    "objects without the mask that MODEL.MASK_ON wants", ERROR,
    "add polygons, delete the objects, or set MODEL.MASK_ON False",
)  # fmt: skip
RLE_MASK = Kind(
    "masks other than polygons", ERROR, "set INPUT.MASK_FORMAT bitmask to use masks in RLE"
)
RLE_SIZE = Kind("masks of another size than the image", ERROR, "write masks of the image's size")
BAD_KEYPOINTS = Kind(
    "objects without the keypoints that MODEL.KEYPOINT_ON wants", ERROR,
    "add them (x, y, visibility each), or set MODEL.KEYPOINT_ON False",
)  # fmt: skip
KEYPOINT_SETTING = Kind(
    "wrong settings of keypoints", ERROR,
    "correct the setting or the data set, or set MODEL.KEYPOINT_ON False",
)  # fmt: skip


def check_objects(
    cfg: CfgNode, name: str, records: Sequence[dict], training: bool, findings: Findings
) -> None:
    """Adds the objects of a data set that lack what the model is trained on or measured by.

    Crowds are left out, as in training. A test set that is evaluated by boxes alone, as VOC sets
    are, needs neither masks nor keypoints.
    """
    if not training and MetadataCatalog.get(name).get("evaluator_type") != "coco":
        return
    checks = []
    if cfg.MODEL.MASK_ON:
        polygons = training and cfg.INPUT.MASK_FORMAT == "polygon"
        checks.append(lambda record, item: _mask_fault(record, item, polygons))
    if cfg.MODEL.KEYPOINT_ON:
        length = 3 * cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        checks.append(lambda record, item: _keypoint_fault(item, length))
    for record in records if checks else ():
        for place, item in enumerate(record.get("annotations", ()), 1):
            for check in checks if not item.get("iscrowd", 0) else ():
                if fault := check(record, item):
                    where = f"object {place} of data set {name}"
                    findings.add(fault[0], record["file_name"], where, fault[1])


def _mask_fault(record: dict, item: dict, polygons: bool) -> tuple[Kind, str] | None:
    mask = item.get("segmentation")
    if not mask:
        return NO_MASK, 'there is no "segmentation"'
    if not isinstance(mask, dict):
        return None
    if polygons:
        return RLE_MASK, "an RLE mask, as INPUT.MASK_FORMAT is polygon"
    frame = [record["height"], record["width"]]
    if list(mask["size"]) != frame:
        return RLE_SIZE, f"{mask['size']} in an image of {frame} (height, width)"
    return None


def _keypoint_fault(item: dict, length: int) -> tuple[Kind, str] | None:
    points = item.get("keypoints") or ()
    if len(points) == length:
        return None
    return BAD_KEYPOINTS, (
        f"expected {counted(length // 3, 'keypoints')} (MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS), "
        f"{length} numbers, got {len(points)}"
    )


def check_keypoint_settings(cfg: CfgNode, findings: Findings) -> None:
    """Adds what Detectron2 would stop at: names and flips of the training sets' keypoints, and as
    many sigmas for evaluation as there are keypoints."""
    if not cfg.MODEL.KEYPOINT_ON:
        return
    number = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for name in cfg.DATASETS.TRAIN:
        metadata = MetadataCatalog.get(name)
        names = metadata.get("keypoint_names")
        if names is None or metadata.get("keypoint_flip_map") is None:
            text = "it has no keypoint_names and keypoint_flip_map, of which flips are made"
            findings.add(KEYPOINT_SETTING, name, "", text)
        elif len(names) != number:
            text = (
                f"{counted(len(names), 'keypoints')} ({', '.join(names)}), and "
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {number}"
            )
            findings.add(KEYPOINT_SETTING, name, "", text)
    given = cfg.TEST.KEYPOINT_OKS_SIGMAS
    coco = [n for n in cfg.DATASETS.TEST if MetadataCatalog.get(n).evaluator_type == "coco"]
    if coco and len(given or [0] * 17) != number:  # by default pycocotools takes COCO's 17
        text = (
            f"{counted(len(given), 'numbers')} for {counted(number, 'keypoints')} "
            "(MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS)"
        )
        findings.add(KEYPOINT_SETTING, "TEST.KEYPOINT_OKS_SIGMAS", "", text)
