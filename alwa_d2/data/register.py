"""Data sets that are named in the config alone, by the key DATASETS.REGISTER."""

import difflib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .._show import show
from .coco import load_coco, read_categories
from .voc import class_names, load_voc, read_split

_KEYS = {
    "voc": {"root": str, "split": str, "year": int, "classes": list},
    "coco": {"images": str, "annotations": str, "classes": list},
}
_DEFAULTS = {"year": 2012, "classes": None}  # keys that may be left out
_YEARS = (2007, 2012)  # VOC's two AP metrics: 11 points, or the area under the curve

_MAX_NAME = 200  # names are written to logs and, by Detectron2, to names of files

_registered: dict[str, dict[str, Any]] = {}  # name -> complete entry, in this process


def register_datasets(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the data sets of `entries`, now known to Detectron2's catalogs.

    An entry is a dict, `{"name", "format": "voc", "root", "split"}` with optional `year` (2007 or
    2012, chooses the AP metric; default 2012) and `classes`, or `{"name", "format": "coco",
    "images", "annotations"}` with optional `classes`. Relative paths start at the current
    directory. Classes come from the data: for VOC the sorted names in all of the root's
    annotations, for COCO the categories by id; `classes` gives the order instead. Either all
    entries are registered or, with an error that names entry and key, none. Registering an entry
    twice changes nothing.
    """
    if not isinstance(entries, (list, tuple)):
        raise ValueError(f"DATASETS.REGISTER: expected a list of entries, got {show(entries)}")
    new: dict[str, dict[str, Any]] = {}
    for index, raw in enumerate(entries):
        where = f"DATASETS.REGISTER[{index}]"
        entry = _complete(where, raw)
        name = entry["name"]
        if name in DatasetCatalog and name not in _registered:
            _refuse(f"{where} ({name})", "name", "a name that is not registered yet", name)
        known = _registered.get(name) if name in DatasetCatalog else None
        known = new.get(name, known)
        if known not in (None, entry):
            expected = f"the content that the name is already registered with, {show(known)}"
            _refuse(f"{where} ({name})", "name", expected, entry)
        new[name] = entry
    for name, entry in new.items():
        if name not in DatasetCatalog:
            _register(entry)
    return list(new)


def _refuse(where: str, key: str, expected: str, got: Any, error: type = ValueError) -> NoReturn:
    raise error(f'{where}, key "{key}": expected {expected}, got {show(got)}')


def _complete(where: str, raw: Any) -> dict[str, Any]:
    """The entry with every key, paths that exist made absolute, and the final class names."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a dict, got {show(raw)}")
    name = raw.get("name")
    if not (isinstance(name, str) and name):
        _refuse(where, "name", "a string", name)
    if not name.isprintable() or len(name) > _MAX_NAME:
        _refuse(where, "name", f"at most {_MAX_NAME} printable characters", name)
    where = f"{where} ({name})"
    if raw.get("format") not in tuple(_KEYS):  # compared, not hashed: it may be anything
        _refuse(where, "format", f"one of {', '.join(_KEYS)}", raw.get("format"))
    keys = _KEYS[raw["format"]]
    for key in raw:
        if key not in ("name", "format", *keys):
            expected = ", ".join(("name", "format", *keys))
            raise ValueError(f'{where}: unknown key "{str(key)[:100]}", expected {expected}')
    entry = {"name": name, "format": raw["format"]}
    for key, kind in keys.items():
        entry[key] = raw.get(key, _DEFAULTS.get(key))
        if key in raw or key not in _DEFAULTS:
            _check_type(where, key, kind, entry[key])
    return (_complete_voc if entry["format"] == "voc" else _complete_coco)(where, entry)


def _check_type(where: str, key: str, kind: type, value: Any) -> None:
    if kind is list:
        names = value if isinstance(value, (list, tuple)) and value else [None]
        if not all(isinstance(name, str) and name.strip() for name in names):
            _refuse(where, key, "a list of class names", value)
        if len(set(names)) < len(names):
            _refuse(where, key, "class names that differ", value)
    elif not isinstance(value, kind) or not value:
        _refuse(where, key, {str: "a string", int: "a whole number"}[kind], value)


def _complete_voc(where: str, entry: dict[str, Any]) -> dict[str, Any]:
    if entry["year"] not in _YEARS:
        _refuse(where, "year", " or ".join(map(str, _YEARS)), entry["year"])
    root = _local(where, entry, "root")
    for folder in (root, os.path.join(root, "Annotations"), os.path.join(root, "JPEGImages")):
        if not os.path.isdir(folder):
            _refuse(where, "root", "a folder in VOC layout", folder, FileNotFoundError)
    try:
        read_split(root, entry["split"])
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f'{where}, key "split": {error}') from error
    return {**entry, "root": root, "classes": list(entry["classes"] or class_names(root))}


def _complete_coco(where: str, entry: dict[str, Any]) -> dict[str, Any]:
    images, annotations = (_local(where, entry, key) for key in ("images", "annotations"))
    if not os.path.isdir(images):
        _refuse(where, "images", "a folder", images, FileNotFoundError)
    if not os.path.isfile(annotations):
        _refuse(where, "annotations", "a COCO json file", annotations, FileNotFoundError)
    categories = read_categories(annotations)
    classes = list(entry["classes"] or categories.values())
    if sorted(classes) != sorted(categories.values()):
        names = show(list(categories.values()))
        expected = f"the names of the file's categories, {names}, in any order"
        _refuse(where, "classes", expected, classes)
    return {**entry, "images": images, "annotations": annotations, "classes": classes}


def _local(where: str, entry: dict[str, Any], key: str) -> str:
    """The absolute path of a key; what PathManager can fetch, such as a URL, is fetched."""
    try:
        return os.path.abspath(PathManager.get_local_path(os.path.expanduser(entry[key])))
    except OSError as error:
        expected = f"a path that can be reached ({error})"
        _refuse(where, key, expected, entry[key], FileNotFoundError)


def _register(entry: dict[str, Any]) -> None:
    """Adds a complete entry to both catalogs."""
    name, classes = entry["name"], entry["classes"]
    metadata = {"thing_classes": classes}
    if entry["format"] == "voc":
        load = partial(load_voc, entry["root"], entry["split"], classes)
        metadata.update(dirname=entry["root"], split=entry["split"], year=entry["year"])
        metadata["evaluator_type"] = "pascal_voc"
    else:
        categories = read_categories(entry["annotations"])
        ids = {number: classes.index(category) for number, category in categories.items()}
        load = partial(load_coco, entry["annotations"], entry["images"], ids)
        metadata.update(json_file=entry["annotations"], image_root=entry["images"])
        metadata.update(thing_dataset_id_to_contiguous_id=ids, evaluator_type="coco")
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
    _registered[name] = entry


def check_classes(cfg: CfgNode) -> None:
    """Refuses a config whose data sets and model do not agree on the classes; call before training.

    Data sets must be registered, those of DATASETS.TRAIN and DATASETS.TEST must have the same
    class names, and the model's number of classes must be theirs. Data sets whose class names
    are known only after loading are left out.
    """
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    for name in names:
        _check_known(name)
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
                f"same order, got {first} with {classes} and {name} with {other}"
            )
    if classes is not None:
        _check_number(cfg, first, classes)


def _check_known(name: str) -> None:
    if not isinstance(name, str):
        raise ValueError(f"DATASETS.TRAIN and DATASETS.TEST: expected names, got {show(name)}")
    if name in DatasetCatalog:
        return
    own = [known for known in _registered if known in DatasetCatalog]
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
