"""Data sets that are named in the config alone, by the key DATASETS.REGISTER."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from .._show import show
from .coco import COCOSet
from .coco_file import read_header
from .entries import complete, layout_of, refuse_key
from .parts import Part, parse_part
from .voc_set import VOCSet

_registered: dict[str, dict[str, Any]] = {}  # name -> complete entry, in this process


def register_datasets(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the data sets of `entries`, now known to Detectron2's catalogs.

    An entry is a dict, `{"name", "format": "voc", "root"}`, or `"images"` and `"annotations"`
    (folders) in place of `"root"`, with optional `split` (without it, all) and `year` (2007 or
    2012, chooses the AP metric; default 2012); or `{"name", "format": "coco", "images",
    "annotations"}` with optional `keypoint_names` and `keypoint_flip_map`. Either takes `classes`,
    `part` ("first 80%", "last 20%", ...) and the part's `seed`. Relative paths start at the current
    directory. Classes come from the data: for VOC the sorted names in all of its annotations, for
    COCO the categories by id; `classes` gives the order instead, and may hold more names. Either
    all entries are registered or, with an error that names entry and key, none. Registering an
    entry twice changes nothing.
    """
    if not isinstance(entries, (list, tuple)):
        raise ValueError(f"DATASETS.REGISTER: expected a list of entries, got {show(entries)}")
    new: dict[str, dict[str, Any]] = {}
    for index, raw in enumerate(entries):
        where = f"DATASETS.REGISTER[{index}]"
        entry = complete(where, raw)
        name = entry["name"]
        if name in DatasetCatalog and name not in _registered:
            refuse_key(f"{where} ({name})", "name", "a name that is not registered yet", name)
        known = _registered.get(name) if name in DatasetCatalog else None
        known = new.get(name, known)
        if known not in (None, entry):
            expected = f"the content that the name is already registered with, {show(known)}"
            refuse_key(f"{where} ({name})", "name", expected, entry)
        new[name] = entry
    for name, entry in new.items():
        if name not in DatasetCatalog:
            _register(entry)
    return list(new)


@contextlib.contextmanager
def registered_for_now() -> Iterator[None]:
    """What is registered inside is forgotten at the end, so that names may stand for other data."""
    before = set(_registered)
    try:
        yield
    finally:
        for name in set(_registered) - before:
            del _registered[name]
            if name in DatasetCatalog:
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)


def _register(entry: dict[str, Any]) -> None:
    """Adds a complete entry to both catalogs; the reader is the metadata's `source`."""
    name = entry["name"]
    part = parse_part(entry["part"], entry["seed"]) if entry["part"] else None
    source, metadata = (_voc if entry["format"] == "voc" else _coco)(entry, part)
    DatasetCatalog.register(name, source)
    MetadataCatalog.get(name).set(thing_classes=entry["classes"], source=source, **metadata)
    _registered[name] = entry


def _voc(entry: dict[str, Any], part: Part | None) -> tuple[VOCSet, dict[str, Any]]:
    layout = layout_of(entry)
    source = VOCSet(entry["name"], layout, entry["split"], part, tuple(entry["classes"]))
    metadata = {"dirname": layout.root, "split": entry["split"], "year": entry["year"]}
    return source, metadata | {"evaluator_type": "pascal_voc"}


def _coco(entry: dict[str, Any], part: Part | None) -> tuple[COCOSet, dict[str, Any]]:
    annotations, images, classes = (entry[k] for k in ("annotations", "images", "classes"))
    ids = _category_ids(read_header(annotations).categories, classes)
    names = tuple(entry["keypoint_names"])
    source = COCOSet(entry["name"], annotations, images, tuple(classes), ids, part, names)
    numbers = {number: index for index, number in enumerate(ids)}
    metadata = {"json_file": annotations, "image_root": images, "evaluator_type": "coco"}
    metadata["thing_dataset_id_to_contiguous_id"] = dict(sorted(numbers.items()))
    if names:
        metadata["keypoint_names"] = list(names)
        metadata["keypoint_flip_map"] = [tuple(pair) for pair in entry["keypoint_flip_map"]]
    return source, metadata


def _category_ids(categories: dict[int | str, str], classes: list[str]) -> tuple[int | str, ...]:
    """A category id for each class: the file's, and new ones for classes that it lacks."""
    of_name = {name: number for number, name in categories.items()}
    is_text = isinstance(next(iter(categories)), str)
    ids = []
    for name in classes:
        if name not in of_name:
            taken = list(of_name.values())
            of_name[name] = max(taken, key=len) + "_" if is_text else max(*taken, 0) + 1
        ids.append(of_name[name])
    return tuple(ids)


def registered_names() -> list[str]:
    """The data sets of DATASETS.REGISTER."""
    return [name for name in _registered if name in DatasetCatalog]
