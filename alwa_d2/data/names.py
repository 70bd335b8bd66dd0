"""Files whose names are written otherwise in an annotation file than on the disk."""

import difflib
import logging
import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from urllib.parse import unquote

logger = logging.getLogger(__name__)

# Similar names are searched for the first few files that are not there: a search takes a second.
_MAX_COMPARED = 40_000
_MAX_SEARCHES = 3

_told: set[str] = set()  # folders whose names are written otherwise, told of in this process


def files_below(folder: str, suffix: str = "") -> Iterator[str]:
    """Paths of the files below `folder` from there on, with "/", in sorted order.

    What ends in `suffix` (any case) and is no folder of other files counts: also pipes and broken
    links, which their reader refuses. Hidden files are left out; linked folders are followed once.
    """
    seen = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if suffix:  # a folder of that name stands in a file's place
            names += [name for name in folders if name.lower().endswith(suffix)]
        taken = set(names)
        folders[:] = sorted(n for n in folders if n not in taken and not n.startswith("."))
        below = os.path.relpath(path, folder).replace(os.sep, "/")
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def plain(name: str) -> str:
    """A name with "/" between folders, %20 and the like decoded, in one Unicode form (NFC)."""
    name = posixpath.normpath(unquote(name).replace("\\", "/"))
    return unicodedata.normalize("NFC", name)


class FileIndex:
    """The files below a folder, found also by names that are written otherwise."""

    def __init__(self, folder: str, suffix: str = ""):
        """`suffix`, in lower case: the files that count, "" for all. Nothing is read before a name
        is looked for that is not there as it is written."""
        self.folder = folder
        self._suffix = suffix
        self._searches_left = _MAX_SEARCHES

    @cached_property
    def names(self) -> list[str]:
        """All files' paths from the folder on."""
        return list(files_below(self.folder, self._suffix))

    @cached_property
    def _written_otherwise(self) -> dict[str, list[str]]:
        index = defaultdict(list)
        for name in self.names:
            index[plain(name).casefold()].append(name)
        return index

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        index = defaultdict(list)
        for name in self.names:
            index[posixpath.splitext(plain(name))[0].casefold()].append(name)
        return index

    def with_stem(self, stem: str) -> list[str]:
        """The files that are called `stem` but for the suffix, those as it is written first."""
        found = self._stems.get(plain(stem).casefold(), [])
        return sorted(found, key=lambda name: posixpath.splitext(name)[0] != stem)

    def find(self, name: str) -> str | None:
        """The file that is meant by `name`: the one of that name, or the only one whose name
        differs in Unicode form, case, kind of slashes or %-signs alone (one log line a process
        tells of the first such file)."""
        if os.path.isfile(os.path.join(self.folder, name)):
            return posixpath.normpath(name)  # ./a is a
        found = self._written_otherwise.get(plain(name).casefold(), [])
        if len(found) > 1:  # two files that differ in case: the one that has the case of `name`
            found = [each for each in found if plain(each) == plain(name)]
        if len(found) != 1:
            return None
        if self.folder not in _told:
            _told.add(self.folder)
            text = "%s: %a is taken for %a, which is written otherwise; others likewise"
            logger.warning(text, self.folder, found[0], name)
        return found[0]

    @cached_property
    def _by_base(self) -> dict[str, str]:
        """Last parts of names, with and without suffix, in small letters -> a file."""
        index = {}
        for name in self.names:
            base = posixpath.basename(plain(name)).casefold()
            index.setdefault(base, name)
            index.setdefault(posixpath.splitext(base)[0], name)
        return index

    def nearest(self, name: str) -> str | None:
        """The most similar name: in another folder, with another suffix, or spelt otherwise."""
        base = posixpath.basename(plain(name)).casefold()
        for key in (base, posixpath.splitext(base)[0]):
            if key in self._by_base:
                return self._by_base[key]
        if self._searches_left == 0:
            return None
        self._searches_left -= 1
        close = difflib.get_close_matches(base, list(self._by_base)[:_MAX_COMPARED], n=1)
        return self._by_base[close[0]] if close else None

    def hint(self, name: str) -> str:
        """A phrase for an error message about the file `name` that is not there."""
        near = self.nearest(name)
        return f"the nearest name is {near!r}" if near else "there is no name like it"
