"""Lists of image ids, as VOC and labelling tools write them."""

import logging
import os
import re
from collections.abc import Callable

from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import log_first_n

from .._show import counted, show
from .checks import is_below
from .names import files_below
from .voc_layout import Layout, find_layout

MAX_SPLIT = 64 * 2**20  # characters of a split file: millions of ids
# VOC's lists for one class: 1 where an image has an object of it, 0 a difficult one, -1 none.
_FLAGGED = re.compile(r"(.*\S)\s+(-1|0|1)")


def read_split(root: str, split: str) -> list[str]:
    """Image ids of a split, in the file's order, each once.

    Ids may hold spaces and name files in subfolders. ValueError for ids that lead out of the root's
    folders (absolute, or with ..) or hold NUL, for no ids, and for more than MAX_SPLIT characters.
    """
    return split_ids(find_layout(root), split)


def split_ids(layout: Layout, split: str | None, tell: bool = True) -> list[str]:
    """Image ids of a split of a layout, of all XML files where `split` is None.

    Of VOC's lists for one class, "id -1", "id 1", the images with 1 and 0 are taken. With `tell`
    the log says once a process what of the list is not used.
    """
    path = layout.annotations if split is None else layout.split_file(split)
    if os.path.isdir(path):
        below = "" if split is None else split.strip("/") + "/"
        return [below + name[: -len(".xml")] for name in files_below(path, ".xml")]
    lines = _read_lines(path)

    def is_id(line: str) -> bool:
        return os.path.isfile(os.path.join(layout.annotations, line + ".xml"))

    ids, note = _without_flags(path, lines, is_id)
    for image_id in ids:
        if not is_below(image_id):
            expected = "image ids that are file names in the root's folders, in UTF-8"
            raise ValueError(f"{path}: expected {expected}, got {show(image_id)}")
    unique = list(dict.fromkeys(ids))
    if repeated := len(ids) - len(unique):
        note += f"{';' if note else ':'} used once: {counted(repeated, 'repeated image ids')}"
    if note and tell:
        log_first_n(logging.WARNING, path + note, name=__name__, key="message")
    return unique


def _read_lines(path: str) -> list[str]:
    # Ids are file names, so bytes that are not UTF-8 are kept as the file system would have them.
    with PathManager.open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        text = file.read(MAX_SPLIT + 1)
    if len(text) > MAX_SPLIT:
        raise ValueError(f"{path}: expected at most {MAX_SPLIT} characters of image ids, got more")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path}: expected one image id a line, got an empty file")
    return lines


def _without_flags(
    path: str, lines: list[str], is_id: Callable[[str], bool]
) -> tuple[list[str], str]:
    """The ids of `lines`, which may be a list for one class, and then a note that says so; "my cat
    1" may also be an id."""
    matches = [_FLAGGED.fullmatch(line) for line in lines]
    if not all(matches) or all(map(is_id, lines)):
        return lines, ""
    ids = [match[1] for match in matches if match[2] != "-1"]
    if not ids:
        raise ValueError(f"{path}: expected ids with 1 or 0 in a list for one class, got -1 alone")
    note = (
        f": a list for one class (id, and -1, 0 or 1); used: {counted(len(ids), 'images')} with 1 "
        f"or 0; left out: {len(lines) - len(ids):,} with -1"
    )
    return ids, note
