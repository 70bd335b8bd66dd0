"""What image files say of themselves, against what Detectron2's reader makes of them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image, ImageFile, PngImagePlugin

from alwa_d2.data.findings import MISSING_IMAGE
from alwa_d2.data.image_headers import (
    CLIPPED,
    PAGES,
    TRUNCATED,
    TRUNCATED_TAKEN,
    TURNED_TWICE,
    UNREADABLE,
    Reading,
    mode_of,
    read_headers,
)

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)  # 40 x 30 pixels


def header_of(path, **reading):
    return next(iter(read_headers([str(path)], Reading(**reading))))


def kinds_of(path, **reading):
    return [kind for kind, _ in header_of(path, **reading).faults]


def ramp(dtype, last):
    """(2, 4) from 0 to `last`."""
    return np.linspace(0, last, 8).round(6).reshape(2, 4).astype(dtype)


@pytest.mark.parametrize(
    "suffix, values, clipped",
    [
        ("png", ramp("uint8", 255), False),
        ("png", ramp("uint16", 65535), True),
        ("png", ramp("uint16", 256), True),
        ("png", ramp("uint16", 255), False),  # 16 bits in name alone
        ("tif", ramp("uint16", 4095), True),
        ("tif", ramp("int32", 100_000), True),
        ("tif", ramp("int32", 255), False),
        ("tif", ramp("int32", 200) - 100, True),
        ("tif", ramp("float32", 1), True),
        ("tif", ramp("float32", 255).round(), False),
        ("png", ramp("uint8", 1).astype(bool), False),
    ],
    ids=lambda value: f"{value.dtype}-{value.max():g}" if isinstance(value, np.ndarray) else None,
)
def test_a_mode_is_refused_where_the_reader_would_change_values(tmp_path, suffix, values, clipped):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(values).save(path)
    read = read_image(str(path), "RGB")[:, :, 0]
    expected = values * 255 if values.dtype == bool else values
    assert np.array_equal(read, expected) is not clipped  # what is refused is what would be wrong
    assert kinds_of(path) == [CLIPPED] * clipped
    assert kinds_of(path, decode=True) == [CLIPPED] * clipped


def test_a_clipped_image_is_told_with_mode_and_range(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(ramp("uint16", 700) + 300).save(path)
    assert header_of(path).faults == (
        (CLIPPED, "mode I;16, values 300 to 1000: what is above 255 would be read as 255"),
    )
    assert kinds_of(path, mode="I") == []  # INPUT.FORMAT I takes them


PNG_COLOURS = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}  # PNG's numbers of them


def deep_png(path, colour, values):
    """A PNG of 16 bits, as wide as a row of the values is long."""
    rows = np.asarray(values, ">u2")
    channels = len(colour)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    size = (rows.shape[1] // channels, len(rows))
    header = struct.pack(">2I5B", *size, 16, PNG_COLOURS[colour], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    path.write_bytes(png_of(chunks))


def deep_tiff(path, values):
    """An uncompressed TIFF of 16 bits RGB: one row."""
    data = np.asarray(values, "<u2").tobytes()
    width, place = len(values) // 3, 8 + 2 + 10 * 12 + 4
    tags = [(256, 3, 1, width), (257, 3, 1, 1), (258, 3, 3, place), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, place + 6), (277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 1, len(data))]
    tags += [(284, 3, 1, 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    path.write_bytes(head + struct.pack("<3H", 16, 16, 16) + data)


def test_of_16_bits_a_colour_the_high_byte_is_read(tmp_path):
    path = tmp_path / "image.png"
    deep_png(path, "RGB", [(0, 256, 65535) * 2] * 2)
    assert read_image(str(path), "RGB")[0, 0].tolist() == [0, 1, 255]
    assert kinds_of(path) == [] and header_of(path).high_byte == 255


@pytest.mark.parametrize(
    "colour, values, expected",
    [
        ("RGB", (0, 256, 4095), 15),
        ("LA", (4000, 65535), 15),  # opacity is no light
        ("RGBA", (0, 300, 20_000, 65535), 78),
        ("TIFF", (0, 256, 4095), 15),
        ("L", (0, 255), None),  # mode I;16, which is looked at by its own rule
    ],
)
def test_the_highest_value_of_16_bits_a_colour(tmp_path, colour, values, expected):
    path = tmp_path / "image"
    deep_tiff(path, values) if colour == "TIFF" else deep_png(path, colour, [values])
    header = header_of(path)
    assert header.high_byte == expected and header.faults == ()
    if expected is not None:
        assert read_image(str(path), "RGB").max() == expected
    assert header_of(path, decode=True).high_byte == expected


def test_some_of_many_images_of_16_bits_a_colour_are_decoded(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(9)]
    for path in paths:
        deep_png(Path(path), "RGB", [(0, 256, 4095)])
    known = [header.high_byte for header in read_headers(paths, Reading())]
    assert known == [15] * 3 + [None] * 6
    known = [header.high_byte for header in read_headers(paths, Reading(decode=True))]
    assert known == [15] * 9


def png_of(chunks):
    """A PNG of (kind, content) pairs."""
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "gif", "webp"])
@pytest.mark.parametrize("left", [0.6, 0.95])
def test_a_file_that_is_cut_off_is_found_without_decoding_all(tmp_path, suffix, left):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(NOISE).save(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(left * len(data))])
    assert header_of(whole).size == (40, 30) and kinds_of(whole) == []
    with pytest.raises(Exception):  # noqa: B017  (what Pillow raises differs from format to format)
        read_image(str(cut), "RGB")
    assert kinds_of(cut) in ([TRUNCATED], [UNREADABLE])
    assert suffix == "webp" or kinds_of(cut) == [TRUNCATED]


def test_bytes_behind_the_end_of_a_jpeg_are_no_fault(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes() + b"\0" * 20)
    assert kinds_of(path) == []


def test_what_is_cut_off_is_a_warning_where_it_is_loaded_on_purpose(tmp_path, monkeypatch):
    path = tmp_path / "image.jpg"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # somebody's; found all the same
    assert kinds_of(path) == [TRUNCATED]
    assert kinds_of(path, load_truncated=True) == [TRUNCATED_TAKEN]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert read_image(str(path), "RGB").shape == (30, 40, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_image_as_it_is_read(tmp_path, suffix, orientation):
    path, exif = tmp_path / f"image.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(path, exif=exif)
    header = header_of(path)
    assert header.size == read_image(str(path), "RGB").shape[1::-1]
    assert header.orientation == orientation
    assert header.turned == (header.size == (30, 40)) == (orientation > 4)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientations_that_other_programs_write_into_a_png(tmp_path, orientation):
    """ImageMagick's profile in text, and Adobe's XMP; Pillow, and so Detectron2, reads both."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    profile, xmp = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
    content = exif.tobytes()
    profile.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n")
    xmp.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{orientation}"/>')
    for i, info in enumerate((profile, xmp)):
        path = tmp_path / f"{i}.png"
        Image.fromarray(NOISE).save(path, pnginfo=info)
        header = header_of(path)
        assert header.size == read_image(str(path), "RGB").shape[1::-1]
        assert header.orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_with_an_orientation_is_refused(tmp_path, orientation):
    """Detectron2 turns what Pillow has turned already: the image is not upright."""
    path, exif = tmp_path / "image.tif", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(path, exif=exif)
    with Image.open(path) as image:
        upright = np.asarray(image)
    wrong = not np.array_equal(read_image(str(path), "RGB"), upright)
    assert wrong == (orientation > 1)
    assert kinds_of(path) == [TURNED_TWICE] * wrong
    assert header_of(path).size == upright.shape[1::-1]


@pytest.mark.parametrize("behind", [False, True])
def test_an_orientation_of_a_png_counts_before_and_behind_the_pixels(tmp_path, behind):
    image, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(image, "PNG")
    data, path = image.getvalue(), tmp_path / "image.png"
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    tag = png_of([(b"eXIf", content)])[8:]
    place = data.index(b"IEND") - 4 if behind else data.index(b"IDAT") - 4
    path.write_bytes(data[:place] + tag + data[place:])
    assert header_of(path).size == read_image(str(path), "RGB").shape[1::-1] == (30, 40)


def test_a_png_without_tags_is_not_decoded(tmp_path, monkeypatch):
    """Pillow would, to look for tags behind the pixels: 20 ms for a million of them."""
    path = tmp_path / "image.png"
    Image.fromarray(NOISE).save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    assert header_of(path).size == (40, 30)


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><p>404", "begins with b'<!DOCTYPE html><'"),
        (b"version https://git-lfs.github.com/spec/v1", "begins with b'version https://'"),
    ],
)
def test_what_is_no_image_is_told_by_how_it_begins(tmp_path, content, text):
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    header = header_of(path)
    assert header.size is None
    ((kind, found),) = header.faults
    assert kind == UNREADABLE and found.endswith(text)


def test_missing_files_folders_and_pages(tmp_path):
    assert kinds_of(tmp_path / "none.jpg") == [MISSING_IMAGE]
    assert kinds_of(tmp_path) == [UNREADABLE]
    Image.fromarray(NOISE).save(
        tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (9, 9))]
    )
    assert header_of(tmp_path / "a.tif").size == (40, 30)
    assert kinds_of(tmp_path / "a.tif") == [PAGES]


def test_identity_is_the_files_and_decoded_the_contents(tmp_path):
    first, linked, copied = (tmp_path / f"{name}.png" for name in "abc")
    Image.fromarray(NOISE).save(first)
    linked.hardlink_to(first)
    copied.write_bytes(first.read_bytes())
    paths = [str(path) for path in (first, linked, copied)]
    a, b, c = (header.identity for header in read_headers(paths, Reading()))
    assert a == b != c
    a, b, c = (header.identity for header in read_headers(paths, Reading(decode=True)))
    assert a == b == c


def test_headers_come_in_order_however_many(tmp_path):
    paths = []
    for width in range(1, 201):
        paths.append(str(tmp_path / f"{width}.png"))
        Image.new("L", (width, 3)).save(paths[-1])
    assert [header.size[0] for header in read_headers(paths, Reading())] == list(range(1, 201))
    assert list(read_headers([], Reading())) == []


def test_mode_of_an_input_format():
    assert [mode_of(name) for name in ("BGR", "RGB", "YUV-BT.601", "L")] == ["RGB"] * 3 + ["L"]
