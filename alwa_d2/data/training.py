"""Whether there is anything to train on, and if not, why."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from .findings import left_out


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
    objects are trained on, so that any image will do.
    """
    lines = []
    for name in cfg.DATASETS.TRAIN:
        records = DatasetCatalog.get(name)
        objects = [obj for record in records for obj in record.get("annotations", ())]
        usable = [obj for obj in objects if not obj.get("iscrowd", 0)]
        if usable or (records and not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS):
            return
        lines.append(
            f"{name} has {len(records)} images with {len(objects)} objects, of which "
            f"{len(objects)} are crowds (iscrowd 1); left out: {left_out(name).summary()}"
        )
    raise ValueError(f"DATASETS.TRAIN: expected objects to train on, got none: {'; '.join(lines)}")
