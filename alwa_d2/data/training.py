"""Whether there is anything to train on, and if not, why."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from .coco_shapes import visible
from .findings import left_out

_MIN_KEYPOINTS = "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE"


def check_train_sets_named(cfg: CfgNode) -> None:
    """ValueError for a training without data sets, at which Detectron2 fails without a word."""
    if not cfg.DATASETS.TRAIN:
        raise ValueError(
            "DATASETS.TRAIN: expected at least one data set to train on, got (); name one, of "
            "DATASETS.REGISTER or one that Detectron2 knows (--eval-only needs none)"
        )


def check_something_to_train_on(cfg: CfgNode) -> None:
    """ValueError with counts and reasons where no image has an object to be learnt.

    All training sets are read. With DATALOADER.FILTER_EMPTY_ANNOTATIONS False images without
    objects are trained on, so that any image will do; with MODEL.KEYPOINT_ON an image needs
    MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE labelled keypoints.
    """
    head, keeps_empty = cfg.MODEL.ROI_KEYPOINT_HEAD, not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    needed = head.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    lines = []
    for name in cfg.DATASETS.TRAIN:
        records = DatasetCatalog.get(name)
        groups = [record.get("annotations", ()) for record in records]
        crowds = sum(bool(obj.get("iscrowd", 0)) for group in groups for obj in group)
        usable = [group for group in groups if keeps_empty or any(map(_is_single, group))]
        enough = [group for group in usable if _keypoints(group) >= needed]
        if enough:
            return
        text = (
            f"{name} has {len(records)} images with {sum(map(len, groups))} objects, of which "
            f"{crowds} are crowds (iscrowd 1); left out: {left_out(name).summary()}"
        )
        if usable:
            text += f"; no image has {needed} labelled keypoints ({_MIN_KEYPOINTS})"
        lines.append(text)
    raise ValueError(f"DATASETS.TRAIN: expected objects to train on, got none: {'; '.join(lines)}")


def _is_single(obj: dict) -> bool:
    return not obj.get("iscrowd", 0)


def _keypoints(group: list[dict]) -> int:
    return sum(visible(obj.get("keypoints", ())) for obj in group)
