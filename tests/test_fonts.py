"""Letters that Matplotlib's own font lacks: a font of the machine that has them, or a number."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

pytest.importorskip("detectron2", reason="needs Detectron2")
pytest.importorskip("fontTools", reason="needs fontTools")

from boxes_by_hand import A, B, instances
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from alwa_d2.analysis import fonts, sheet
from alwa_d2.analysis.matching import Sample
from alwa_d2.analysis.pictures import rasterise

CELL = "\u7ec6\u80de"  # Chinese for cell
OTHER = "\u8840"  # a letter that the font below lacks


def make_font(path, letters):
    """A font in which each of `letters` is a filled square of the font's whole size."""
    names = [".notdef", *(f"uni{ord(letter):04X}" for letter in letters)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:])})
    pen = TTGlyphPen(None)
    for index, point in enumerate([(0, 0), (0, 800), (900, 800), (900, 0)]):
        (pen.lineTo if index else pen.moveTo)(point)
    pen.closePath()
    font.setupGlyf({name: pen.glyph() for name in names})
    font.setupHorizontalMetrics({name: (1000, 0) for name in names})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return str(path)


def forget():
    for function in (fonts._installed, fonts._find):
        function.cache_clear()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Says which fonts the machine has."""

    def install(*paths):
        forget()
        monkeypatch.setattr(fonts.font_manager, "findSystemFonts", lambda: list(paths))

    yield install
    forget()


@pytest.fixture
def squares(tmp_path):
    return make_font(tmp_path / "Squares.ttf", CELL + "0123456789. ")


def test_a_font_that_has_all_letters_is_found(installed, squares, tmp_path):
    broken = tmp_path / "aa-sans-regular.ttf"  # comes first, and is passed over
    broken.write_bytes(b"no font")
    last_resort = make_font(tmp_path / "LastResort.ttf", CELL + OTHER)
    installed(str(broken), last_resort, squares)
    assert fonts.font_file("Zürich клетка 0.9\n") == fonts.DEFAULT
    assert fonts.font_file(f"{CELL} 0.95") == squares
    assert fonts.font_file(OTHER) is None
    assert fonts.font(11, CELL).path == squares and fonts.font(11, OTHER).path == fonts.DEFAULT


def test_a_number_stands_for_what_no_font_has(installed, squares):
    names = ["cat", CELL, OTHER, "$x$"]
    installed(squares)
    assert fonts.stand_ins(names, "#") == ["cat", CELL, "#2", "$x$"]
    assert fonts.legend(names, "#").endswith(f"in the picture #2 is {OTHER}")
    installed()
    assert fonts.stand_ins(names, "#") == ["cat", "#1", "#2", "$x$"]
    assert fonts.legend(names, "#").endswith(f"in the picture #1 is {CELL}, #2 is {OTHER}")
    assert fonts.legend(["cat"], "#") == "" and fonts.readable(f"cat {CELL}.jpg") == "cat ??.jpg"


def test_a_sheet_has_the_letters_or_numbers(installed, squares):
    grey = np.full((100, 160, 3), 127, np.uint8)
    truth, found = instances([A, B], [0, 1]), instances([A], [0], [0.9])
    samples = [Sample(f"{CELL}1", grey, truth, found), Sample("2", grey, truth, found)]
    classes = [CELL, OTHER]
    installed(squares)
    texts = [mark.text for mark in sum(sheet.marks(samples[0], classes), [])]
    assert texts == [CELL, "#1", "#1", f"{CELL} 0.90"]
    assert sheet.image_names(samples) == [f"{CELL}1", "2"]
    assert sheet.legends(samples, classes).endswith(f"#1 is {OTHER}")

    installed()
    texts = [mark.text for mark in sheet.marks(samples[0], classes)[1]]
    assert texts == ["#1", "#0 0.90"]
    first, second = sheet.legends(samples, classes).splitlines()
    assert first.endswith(f"#0 is {CELL}, #1 is {OTHER}")
    assert second.endswith(f"image 0 is {CELL}1")
    drawn = sheet.make_sheet(samples, classes, CELL)
    assert np.array_equal(drawn, sheet.make_sheet(samples, ["#0", "#1"], "??"))


def test_texts_of_a_figure_get_fonts_of_their_own(installed, squares):
    installed(squares)
    axes = (figure := Figure()).subplots()
    axes.set_title(CELL, fontsize=17)
    axes.set_xlabel("pixels")
    axes.set_ylabel(OTHER)
    axes.set_yticks([0.0, 0.5], [CELL, "cat"])
    assert isinstance(rasterise(figure, 0.5), Image.Image)
    assert axes.title.get_fontproperties().get_file() == squares and axes.title.get_size() == 17
    assert axes.xaxis.label.get_fontproperties().get_file() is None
    assert axes.get_ylabel() == "?"
    ticks = [(t.get_text(), t.get_fontproperties().get_file()) for t in axes.get_yticklabels()]
    assert ticks == [(CELL, squares), ("cat", None)]
