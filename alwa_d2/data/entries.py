"""Entries of DATASETS.REGISTER: what they may hold, and what they leave out filled in."""

import ast
import json
import os
from collections.abc import Mapping
from typing import Any, NoReturn

from detectron2.utils.file_io import PathManager

from .._show import show
from .coco_file import read_header
from .keypoints import flip_pairs
from .parts import parse_part
from .voc import names_in
from .voc_layout import Layout, find_layout
from .voc_split import split_ids

_KEYS = {
    "voc": {
        "root": str,
        "split": str,
        "images": str,
        "annotations": str,
        "part": str,
        "seed": int,
        "year": int,
        "classes": list,
    },
    "coco": {
        "images": str,
        "annotations": str,
        "part": str,
        "seed": int,
        "classes": list,
        "keypoint_names": list,
        "keypoint_flip_map": tuple,
    },
}
_NEEDED = {"voc": (), "coco": ("images", "annotations")}
_DEFAULTS = {"year": 2012, "seed": 0}  # of keys that may be left out; None for the others
_YEARS = (2007, 2012)  # VOC's two AP metrics: 11 points, or the area under the curve
_WORDS = {str: "a string", int: "a whole number"}

_MAX_NAME = 200  # names are written to logs and, by Detectron2, to names of files


def parse_entries(text: str) -> list:
    """DATASETS.REGISTER as the command line gives it: a list in Python's form, or in JSON's."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass  # JSON's null, true and false are names in Python
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(
            "DATASETS.REGISTER: expected a list of entries, got one too deep"
        ) from error
    except ValueError as error:
        at = getattr(error, "pos", 0)
        raise ValueError(
            "DATASETS.REGISTER: expected a list of entries, in Python's form or as JSON, got a "
            f"text that is neither: {error}, at {show(text[at : at + 40])}"
        ) from error


def refuse_key(where: str, key: str, expected: str, got: Any, error: type = ValueError) -> NoReturn:
    raise error(f'{where}, key "{key}": expected {expected}, got {show(got)}')


def complete(where: str, raw: Any) -> dict[str, Any]:
    """The entry with every key, paths that exist made absolute, and the final class names.

    Keys that may be left out may also be None, YAML's and JSON's null. ValueError or
    FileNotFoundError begin with `where`, and name the key.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a dict, got {show(raw)}")
    name = raw.get("name")
    if not (isinstance(name, str) and name):
        refuse_key(where, "name", "a string", name)
    if not name.isprintable() or len(name) > _MAX_NAME:
        refuse_key(where, "name", f"at most {_MAX_NAME} printable characters", name)
    where = f"{where} ({name})"
    if raw.get("format") not in tuple(_KEYS):  # compared, not hashed: it may be anything
        refuse_key(where, "format", f"one of {', '.join(_KEYS)}", raw.get("format"))
    keys = _KEYS[raw["format"]]
    for key in raw:
        if key not in ("name", "format", *keys):
            expected = ", ".join(("name", "format", *keys))
            raise ValueError(f'{where}: unknown key "{str(key)[:100]}", expected {expected}')
    entry = {"name": name, "format": raw["format"]}
    for key, kind in keys.items():
        entry[key] = raw.get(key)
        if entry[key] is not None or key in _NEEDED[raw["format"]]:
            _check_type(where, key, kind, entry[key])
        elif key in _DEFAULTS:
            entry[key] = _DEFAULTS[key]
    _check_part(where, entry)
    return (_complete_voc if entry["format"] == "voc" else _complete_coco)(where, entry)


def _check_type(where: str, key: str, kind: type, value: Any) -> None:
    what = "class names" if key == "classes" else "names"
    if kind is list:
        names = value if isinstance(value, (list, tuple)) and value else [None]
        if not all(isinstance(name, str) and name.strip() for name in names):
            refuse_key(where, key, f"a list of {what}", value)
        if len(set(names)) < len(names):
            refuse_key(where, key, f"{what} that differ", value)
    elif kind is tuple:
        pairs = value if isinstance(value, (list, tuple)) else [None]
        if not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            refuse_key(where, key, "a list of pairs of names", value)
    elif not isinstance(value, kind) or isinstance(value, bool) or value == "":
        refuse_key(where, key, _WORDS[kind], value)


def _check_part(where: str, entry: dict[str, Any]) -> None:
    if entry["part"] is not None:
        try:
            parse_part(entry["part"], entry["seed"])
        except ValueError as error:
            raise ValueError(f'{where}, key "part": {error}') from error


def layout_of(entry: dict[str, Any]) -> Layout:
    """The layout of an entry in VOC format whose paths are absolute."""
    if entry["images"] is None and entry["annotations"] is None:
        return find_layout(entry["root"])
    annotations = entry["annotations"] or entry["images"]
    images = entry["images"] or annotations
    return Layout(entry["root"] or os.path.dirname(annotations), annotations, images)


def _complete_voc(where: str, entry: dict[str, Any]) -> dict[str, Any]:
    if entry["year"] not in _YEARS:
        refuse_key(where, "year", " or ".join(map(str, _YEARS)), entry["year"])
    folders = [key for key in ("root", "images", "annotations") if entry[key] is not None]
    if not folders:
        refuse_key(where, "root", 'a string, or "images" and "annotations" in its place', None)
    for key in folders:
        entry[key] = _local(where, entry, key)
        if not os.path.isdir(entry[key]):
            what = "a folder in VOC layout" if key == "root" else "a folder (a json file is COCO's)"
            refuse_key(where, key, what, entry[key], FileNotFoundError)
    key = folders[0]
    try:
        layout = layout_of(entry)
        key = "split"
        if not split_ids(layout, entry["split"], tell=False):
            raise ValueError(f"{layout.annotations}: expected XML files, got none")
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f'{where}, key "{key}": {error}') from error
    return {**entry, "classes": list(entry["classes"] or names_in(layout.annotations))}


def _complete_coco(where: str, entry: dict[str, Any]) -> dict[str, Any]:
    images, annotations = (_local(where, entry, key) for key in ("images", "annotations"))
    if not os.path.isdir(images):
        refuse_key(where, "images", "a folder", images, FileNotFoundError)
    if not os.path.isfile(annotations):
        refuse_key(where, "annotations", "a COCO json file", annotations, FileNotFoundError)
    header = read_header(annotations)
    classes = list(entry["classes"] or header.categories.values())
    used = [name for number, name in header.categories.items() if number in header.used]
    if lacking := [name for name in used if name not in classes]:
        every = show(list(header.categories.values()))
        expected = (
            f"at least the names of the categories that the file's objects have, {show(used)} of "
            f"{every}, with {show(lacking)}"
        )
        refuse_key(where, "classes", expected, classes)
    names = list(entry["keypoint_names"] or header.keypoint_names)
    try:
        pairs = flip_pairs(names, entry["keypoint_flip_map"])
    except ValueError as error:
        raise ValueError(f'{where}, key "keypoint_flip_map": {error}') from error
    more = {"classes": classes, "keypoint_names": names, "keypoint_flip_map": pairs}
    return {**entry, "images": images, "annotations": annotations, **more}


def _local(where: str, entry: dict[str, Any], key: str) -> str:
    """The absolute path of a key; what PathManager can fetch, such as a URL, is fetched."""
    try:
        return os.path.abspath(PathManager.get_local_path(os.path.expanduser(entry[key])))
    except OSError as error:
        expected = f"a path that can be reached ({error})"
        refuse_key(where, key, expected, entry[key], FileNotFoundError)
