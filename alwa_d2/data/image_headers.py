"""What image files say of themselves, read without decoding them, as Detectron2 would take them.

Detectron2 opens an image with Pillow, turns it as its EXIF tag says and converts it to
INPUT.FORMAT. What would go wrong there, or silently otherwise than meant, is found here from the
header, its mode, and the end of the file; pixels are decoded only where these leave a doubt.
"""

import hashlib
import io
import os
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageFile, UnidentifiedImageError

from .deep_colour import high_byte, is_deep
from .findings import ERROR, MISSING_IMAGE, WARNING, Kind

UNREADABLE = Kind("images that cannot be read", ERROR, "write the file anew or take it out")
TRUNCATED = Kind(
    "images cut off", ERROR,
    "copy the file again, or load what is there with INPUT.LOAD_TRUNCATED True",
)  # fmt: skip
TRUNCATED_TAKEN = Kind(
    "images cut off", WARNING, "INPUT.LOAD_TRUNCATED: what is missing is left grey or black"
)
CLIPPED = Kind(
    "images of more than 8 bits a value, which would be clipped at 255", ERROR,
    "convert all of them to 8 bits with the same factor: 255 divided by the set's largest value",
)  # fmt: skip
TURNED_TWICE = Kind(
    "TIFF files with an orientation, which would be turned twice", ERROR,
    "save them upright, without the tag",
)  # fmt: skip
PAGES = Kind("image files of several pages", WARNING, "the first page is read; split the file")

WORKERS = 8  # threads: they wait for a network's disk together; on a local one they cost nothing
_CHUNK = 64  # images a task of a thread
_READ_OF_MODE = 3  # images of a chunk that are decoded for the range of 16 bits and more
_EXIF_ORIENTATION = 0x0112
QUARTER_TURNS = (5, 6, 7, 8)  # orientations whose width and height change places
# What Pillow keeps of a PNG that may say how to turn it.
_TURNING = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
_PNG_TEXT = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # chunks that may hold an orientation


@dataclass(frozen=True)
class Reading:
    """How images will be read: `mode` of Pillow that they are converted to (from INPUT.FORMAT),
    `decode` all pixels, `load_truncated` where files are cut off."""

    mode: str = "RGB"
    decode: bool = False
    load_truncated: bool = False


def mode_of(image_format: str) -> str:
    """Pillow's mode for Detectron2's INPUT.FORMAT, which has two names more."""
    return "RGB" if image_format in ("BGR", "YUV-BT.601") else image_format


@dataclass(frozen=True)
class Header:
    """One file: `size` (width, height) in pixels as read, after the turn by EXIF, None where it
    cannot be read; `identity` is the same for the same file, and where all was decoded for the same
    content; `faults` are kinds with what was found; `high_byte` is the highest value read of 16
    bits a colour, None for other images and those that were not decoded for it."""

    size: tuple[int, int] | None
    orientation: int  # of EXIF; 1 is upright
    identity: tuple
    faults: tuple[tuple[Kind, str], ...]
    high_byte: int | None = None

    @property
    def turned(self) -> bool:
        """Whether width and height have changed places."""
        return self.orientation in QUARTER_TURNS


def orientation_of(image: Image.Image) -> int:
    """The orientation of EXIF, 1..8; 1 where there is none that Detectron2 would take."""
    try:
        number = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # Pillow fails in many ways on broken tags; Detectron2 ignores them likewise
        return 1
    return number if number in range(2, 9) else 1


def read_headers(paths: Sequence[str], reading: Reading) -> Iterator[Header]:
    """The headers of image files in their order, read by WORKERS threads."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    strict = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # or nothing would be found cut off
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            for headers in pool.map(lambda chunk: _read_chunk(chunk, reading), chunks):
                yield from headers
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = strict


def _read_chunk(paths: Sequence[str], reading: Reading) -> list[Header]:
    headers, looked_at = [], 0
    for path in paths:
        # Where some are clipped, or of 16 bits a colour, the others are not decoded for it.
        header = _read(path, reading, looked_at < _READ_OF_MODE)
        looked_at += any(kind == CLIPPED for kind, _ in header.faults)
        looked_at += header.high_byte is not None
        headers.append(header)
    return headers


def _read(path: str, reading: Reading, look_at_range: bool) -> Header:
    try:
        local = PathManager.get_local_path(path) if "://" in path else path
        with open(local, "rb") as file:
            return _read_open(file, reading, look_at_range)
    except FileNotFoundError:
        return Header(None, 1, (path,), ((MISSING_IMAGE, "there is no such file"),))
    except OSError as error:
        return Header(None, 1, (path,), ((UNREADABLE, error.strerror or str(error)),))


def _read_open(file: BinaryIO, reading: Reading, look_at_range: bool) -> Header:
    status = os.fstat(file.fileno())
    identity = (status.st_dev, status.st_ino)
    source = file
    if reading.decode:
        content = file.read()
        identity, source = (hashlib.blake2b(content, digest_size=16).digest(),), io.BytesIO(content)
    try:
        with Image.open(source) as image:
            faults = [*_pages(image)]
            look_at_colour = is_deep(image) and (look_at_range or reading.decode)
            late_text, cut = _look_at_end(image, source, status.st_size)
            if reading.decode or late_text or cut:
                faults += _decode(image, reading)
            if not faults:
                faults += _look_at_mode(image, reading.mode, look_at_range)
            # Pillow decodes a PNG whose tags may be behind the pixels; only then is that needed.
            quick = image.format == "PNG" and not late_text and not _TURNING & image.info.keys()
            orientation = 1 if quick else orientation_of(image)
            if image.format == "TIFF" and orientation != 1:
                # Pillow turns these by itself when it decodes, and Detectron2 once more.
                faults.append((TURNED_TWICE, f"orientation {orientation}"))
                orientation = 1
            size = image.size[::-1] if orientation in QUARTER_TURNS else image.size
            highest = high_byte(image) if look_at_colour and not faults else None
            return Header(size, orientation, identity, tuple(faults), highest)
    except UnidentifiedImageError:
        source.seek(0)
        begin = source.read(16)
        fault = f"not an image that Pillow knows, or cut off; it begins with {begin!r}"
        fault = fault if begin else "the file is empty"
    except Exception as error:  # Pillow raises errors of many types for broken files
        fault = f"Pillow: {error}"
    return Header(None, 1, identity, ((UNREADABLE, fault),))


def _pages(image: Image.Image) -> Iterator[tuple[Kind, str]]:
    if image.format == "TIFF" and image.is_animated:
        yield PAGES, f"{image.n_frames} pages"
        image.seek(0)


def _decode(image: Image.Image, reading: Reading) -> Iterator[tuple[Kind, str]]:
    try:
        image.load()
    except Exception as error:
        cut = "truncated" in str(error)
        kind = TRUNCATED if cut else UNREADABLE
        if cut and reading.load_truncated:
            kind = TRUNCATED_TAKEN
        yield kind, f"Pillow: {error}"


def _look_at_mode(image: Image.Image, mode: str, look_at_range: bool) -> Iterator[tuple[Kind, str]]:
    """A fault where converting to `mode`, of 8 bits, would change values."""
    wide = image.mode == "F" or image.mode.startswith("I")
    if not wide or mode in ("I", "F"):
        return
    text = f"mode {image.mode}"
    if look_at_range:
        values = np.asarray(image)
        low, high = np.nanmin(values), np.nanmax(values)
        if low >= 0 and high <= 255 and (values == np.rint(values)).all():
            return
        text += f", values {low:g} to {high:g}"
    yield CLIPPED, f"{text}: what is above 255 would be read as 255"


def _look_at_end(image: Image.Image, file: BinaryIO, size: int) -> tuple[bool, bool]:
    """(whether text follows the pixels of a PNG, whether the end of the file seems missing).

    The file's position is left as it was, for Pillow.
    """
    position = file.tell()
    try:
        if image.format == "PNG":
            return _walk_png(file)
        return False, _ENDS.get(image.format, _is_whole)(image, file, size)
    finally:
        file.seek(position)


def _walk_png(file: BinaryIO) -> tuple[bool, bool]:
    """:func:`_look_at_end` of a PNG: from chunk to chunk, over what they hold."""
    file.seek(8)
    pixels = late_text = False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return late_text, False
        pixels = pixels or kind == b"IDAT"
        late_text = late_text or (pixels and kind in _PNG_TEXT)
        file.seek(length + 4, os.SEEK_CUR)  # a checksum follows
    return late_text, True


def _is_whole(image: Image.Image, file: BinaryIO, size: int) -> bool:
    return False


def _jpeg_is_cut(image: Image.Image, file: BinaryIO, size: int) -> bool:
    file.seek(-2, os.SEEK_END)
    return file.read(2) != b"\xff\xd9"


def _gif_is_cut(image: Image.Image, file: BinaryIO, size: int) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b";"


def _bmp_is_cut(image: Image.Image, file: BinaryIO, size: int) -> bool:
    file.seek(2)
    return struct.unpack("<I", file.read(4))[0] > size


def _tiff_is_cut(image: Image.Image, file: BinaryIO, size: int) -> bool:
    for offsets, lengths in ((273, 279), (324, 325)):  # of strips, of tiles
        parts = zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(lengths, ()))
        if any(start + length > size for start, length in parts):
            return True
    return False


# By Pillow's names; a doubt is enough, such a file is then decoded.
_ENDS = {
    "BMP": _bmp_is_cut,
    "GIF": _gif_is_cut,
    "JPEG": _jpeg_is_cut,
    "MPO": _jpeg_is_cut,
    "TIFF": _tiff_is_cut,
}
