"""Data sets: the embedded shapes, and a user's own in VOC or COCO layout, from the config.

Importing this registers `shapes_train` and `shapes_test`; they are drawn when first loaded.
"""

from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog

from .classes import check_classes
from .register import register_datasets
from .shapes import CLASSES as SHAPES_CLASSES
from .shapes import default_root, ensure_shapes
from .voc import VOCAnnotation, VOCObject, read_annotation
from .voc_set import load_voc
from .voc_split import read_split

__all__ = [
    "SHAPES_CLASSES",
    "VOCAnnotation",
    "VOCObject",
    "check_classes",
    "ensure_shapes",
    "load_voc",
    "read_annotation",
    "read_split",
    "register_datasets",
]


def _load_shapes(root: str, split: str) -> list[dict]:
    return load_voc(ensure_shapes(root), split, SHAPES_CLASSES, f"shapes_{split}")


def _register_shapes() -> None:
    root = default_root()
    for split in ("train", "test"):
        name = f"shapes_{split}"
        DatasetCatalog.register(name, partial(_load_shapes, root, split))
        MetadataCatalog.get(name).set(
            thing_classes=list(SHAPES_CLASSES),
            evaluator_type="pascal_voc",
            dirname=root,
            split=split,
            year=2012,
        )


_register_shapes()
