"""Where a data set in VOC layout has its files, as VOC itself and labelling tools write them."""

import os
from dataclasses import dataclass

from detectron2.utils.file_io import PathManager

from .._show import show
from .checks import is_below
from .names import files_below

# Names of folders, compared in small letters, in the order in which they are preferred.
ANNOTATION_FOLDERS = ("annotations", "annots", "annotation", "xml", "xmls", "labels")
IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "img", "image", "pictures", "photos")


@dataclass(frozen=True)
class Layout:
    """Folders of XML files and of pictures, which may be one, and where lists of ids are."""

    root: str
    annotations: str
    images: str

    def describe(self) -> str:
        """One phrase for the log and for `check-data`."""
        if self.annotations == self.images:
            return f"VOC, XML beside the pictures in {self.annotations}"
        return f"VOC, XML in {self.annotations}, pictures in {self.images}"

    def split_file(self, split: str) -> str:
        """The file that lists the ids of a split, or the folder that holds its XML files.

        `split` is a name in ImageSets/Main or ImageSets, a file in the root or from the current
        directory on, or a subfolder of the annotations'. FileNotFoundError names those there are.
        """
        lists = os.path.join(self.root, "ImageSets")
        places = (os.path.join(lists, "Main"), lists, self.root, os.path.abspath(os.curdir))
        for place in places:
            for name in (split + ".txt", split):
                path = os.path.join(place, name)
                if PathManager.isfile(path):
                    return path
        folder = os.path.join(self.annotations, split)
        if is_below(split) and os.path.isdir(folder):
            return folder
        raise FileNotFoundError(
            f"{os.path.join(places[0], split)}.txt: no such split; this data set has: "
            f'{", ".join(self._splits()) or "none"} (without "split" all of it is read)'
        )

    def _splits(self) -> list[str]:
        folder = os.path.join(self.root, "ImageSets", "Main")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        known = [name[: -len(".txt")] for name in names if name.endswith(".txt")]
        if os.path.isdir(self.annotations):
            with os.scandir(self.annotations) as entries:
                known += sorted(e.name for e in entries if e.is_dir())
        return known


def _subfolders(root: str, names: tuple[str, ...]) -> list[str]:
    """The subfolders of `root` with one of `names`, in any case, in the order of `names`."""
    there = {name.lower(): name for name in sorted(os.listdir(root), reverse=True)}
    found = (os.path.join(root, there[name]) for name in names if name in there)
    return list(filter(os.path.isdir, found))


def _annotation_folder(root: str) -> str | None:
    found = _subfolders(root, ANNOTATION_FOLDERS)
    with_files = (folder for folder in found if next(files_below(folder, ".xml"), None))
    return next(with_files, found[0] if found else None)


def find_layout(root: str) -> Layout:
    """The layout below `root`; FileNotFoundError says what was looked for and what is there."""
    if not os.path.isdir(root):
        raise FileNotFoundError(f"expected a folder in VOC layout, got {show(root)}")
    annotations = _annotation_folder(root)
    images = next(iter(_subfolders(root, IMAGE_FOLDERS)), None)
    if annotations and images:
        return Layout(root, annotations, images)
    for folder in filter(None, (annotations, images, root)):  # XML beside the pictures
        if _has_pair(folder):
            return Layout(root, folder, folder)
    if annotations and _has_pictures(root):
        return Layout(root, annotations, root)
    if images and next(files_below(root, ".xml"), None):
        return Layout(root, root, images)
    folders = sorted(e.name for e in os.scandir(root) if e.is_dir())
    raise FileNotFoundError(
        "expected a folder in VOC layout: Annotations (or annotations, annots, ...) and JPEGImages "
        f"(or images, ...), or XML files beside the pictures, got {show(root)} with the folders "
        f'{show(folders)}; "images" and "annotations" in place of "root" name others'
    )


def _has_pair(folder: str) -> bool:
    """Whether some XML file has another file of its name beside it."""
    seen: dict[str, set[bool]] = {}
    for name in files_below(folder):
        stem, suffix = os.path.splitext(name)
        kinds = seen.setdefault(stem, set())
        kinds.add(suffix.lower() == ".xml")
        if len(kinds) == 2:
            return True
    return False


def _has_pictures(folder: str) -> bool:
    suffixes = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
    return any(name.lower().endswith(suffixes) for name in os.listdir(folder))
