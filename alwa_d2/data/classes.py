"""Whether data sets and model fit each other: looked at before training and evaluation."""

import difflib
import itertools

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from .._show import show
from .needs import note_needs
from .register import registered_names


def check_classes(cfg: CfgNode) -> None:
    """Refuses a config whose data sets and model do not agree on the classes; call before training.

    Data sets must be registered, those of DATASETS.TRAIN and DATASETS.TEST must have the same
    class names, and the model's number of classes must be theirs. Data sets whose class names
    are known only after loading are left out.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    for name in names:
        _check_known(name)
    note_needs(cfg, names)
    first, classes = None, None
    for name in names:
        other = list(MetadataCatalog.get(name).get("thing_classes") or ())
        if not other:
            continue
        if classes is None:
            first, classes = name, other
        elif other != classes:
            raise ValueError(
                "DATASETS.TRAIN and DATASETS.TEST: expected data sets of the same classes in the "
                f"same order, got {first} with {classes} and {name} with {other}; "
                f"{_remedy(classes, other)}"
            )
    if classes is not None:
        _check_number(cfg, first, classes)
    _check_parts(cfg)


def _remedy(first: list[str], second: list[str]) -> str:
    every = show(list(dict.fromkeys([*first, *second])))
    return f'give both entries of DATASETS.REGISTER "classes": {every}, which may hold more names'


def _check_parts(cfg: CfgNode) -> None:
    """Refuses a training and a test set that are parts of the same images and overlap."""
    for train, test in itertools.product(cfg.DATASETS.TRAIN, cfg.DATASETS.TEST):
        a, b = (MetadataCatalog.get(name).get("source") for name in (train, test))
        if a is None or b is None or a.part is None or b.part is None:
            continue
        if a.images_of_all == b.images_of_all and a.part.overlaps(b.part):
            raise ValueError(
                f"DATASETS.TRAIN and DATASETS.TEST: expected parts without common images, got "
                f'{train} with {a.part} and {test} with {b.part}; "first 80%" and "last 20%" of '
                "one seed have none"
            )


def _check_known(name: str) -> None:
    if not isinstance(name, str):
        raise ValueError(f"DATASETS.TRAIN and DATASETS.TEST: expected names, got {show(name)}")
    if name in DatasetCatalog:
        return
    own = registered_names()
    near = difflib.get_close_matches(name, DatasetCatalog.list(), n=5)
    raise ValueError(
        f"DATASETS.TRAIN and DATASETS.TEST: expected registered data sets, got {name!r}; nearest "
        f"names: {', '.join(near) or 'none'}; from DATASETS.REGISTER: {', '.join(own) or 'none'}"
    )


def _check_number(cfg: CfgNode, name: str, classes: list[str]) -> None:
    if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE:
        key, number = "MODEL.RETINANET.NUM_CLASSES", cfg.MODEL.RETINANET.NUM_CLASSES
    elif "RCNN" in cfg.MODEL.META_ARCHITECTURE:
        key, number = "MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES
    elif "FCOS" in cfg.MODEL.META_ARCHITECTURE:
        key, number = "MODEL.FCOS.NUM_CLASSES", cfg.MODEL.FCOS.NUM_CLASSES
    else:
        return
    if number != len(classes):
        raise ValueError(
            f"{key}: expected {len(classes)}, the number of classes of {name} "
            f"({', '.join(classes)}), got {number}"
        )
