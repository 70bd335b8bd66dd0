"""XML files that nobody vouches for: no entities, no other files, bounded memory and time."""

import re
import xml.etree.ElementTree as ET
from xml.parsers import expat

from detectron2.utils.file_io import PathManager

MAX_BYTES = 8 * 2**20  # tens of thousands of objects; bounds time to seconds, memory to 200 MB
MAX_DEPTH = 64  # VOC's own files have 5 levels

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.-]+)["']""")
# Encodings of several bytes a character, which expat does not know -> Python's, in its widest form:
# what is declared gb2312 or shift_jis mostly holds characters that were added to them later.
_BY_PYTHON = {
    "gb2312": "gb18030", "gbk": "gb18030", "cp936": "gb18030", "gb18030": "gb18030",
    "big5": "cp950", "cp950": "cp950", "big5-hkscs": "big5hkscs",
    "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "cp932": "cp932",
    "windows-31j": "cp932", "euc-jp": "euc_jp", "iso-2022-jp": "iso2022_jp",
    "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "cp949": "cp949",
}  # fmt: skip


class _Tree:
    """Handlers of an expat parser that build a tree, without attributes, and refuse the rest.

    ET.parse is not used: it hands declarations to expat without a look, and whether expat limits
    what they expand to depends on its version. docs/libraries.md says why defusedxml is not either.
    """

    def __init__(self):
        self._builder = ET.TreeBuilder()
        self._depth = 0

    def parse(self, data: bytes, encoding: str | None) -> ET.Element:
        """`encoding`: that of `data`, if it is not the one that they declare."""
        parser = expat.ParserCreate(encoding)
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._builder.data
        parser.StartDoctypeDeclHandler = self._doctype
        parser.SkippedEntityHandler = self._skipped
        parser.Parse(data, True)
        return self._builder.close()

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"expected at most {MAX_DEPTH} levels of tags, got more")
        self._builder.start(tag, {})

    def _end(self, tag: str) -> None:
        self._depth -= 1
        self._builder.end(tag)

    def _doctype(self, name: str, system: str, public: str, has_declarations: int) -> None:
        # Without declarations a DOCTYPE can define nothing; the DTD it may name is not read.
        if has_declarations:
            raise ValueError("expected no declarations (<!ENTITY ...>) in <!DOCTYPE>, got some")

    def _skipped(self, name: str, is_parameter: int) -> None:
        raise ValueError(f"expected text without entities, got &{name};")


def read_xml(path: str) -> ET.Element:
    """The root of an XML file's tree; attributes are left out.

    Raises FileNotFoundError for what is no regular file, and ValueError, both with the path, for
    more than MAX_BYTES or MAX_DEPTH levels, entities, and what else is no XML.
    """
    if not PathManager.isfile(path):  # also folders, pipes, which block, and links in a circle
        raise FileNotFoundError(f"{path}: expected an XML file, got none")
    with PathManager.open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_BYTES} bytes of XML, got more")
    try:
        return _Tree().parse(*_decoded(data))
    except (expat.ExpatError, LookupError, ValueError) as error:  # last two: unknown encodings too
        raise ValueError(f"{path}: broken XML: {error}{_hint(data)}") from error


def _decoded(data: bytes) -> tuple[bytes, str | None]:
    """The data in an encoding that expat reads, and its name if it is not the declared one."""
    declared = _DECLARED.match(data)
    name = _BY_PYTHON.get(declared[1].decode().lower()) if declared else None
    return (data, None) if name is None else (data.decode(name).encode(), "utf-8")


def _hint(data: bytes) -> str:
    """What may help with a file that says nothing about its encoding, and is not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        if not _DECLARED.match(data):
            return ' (it is not UTF-8, so its first line must declare it: <?xml encoding="..."?>)'
    return ""
