"""Detections matched with the ground truth, and the sheets that show them."""

from collections import Counter

import numpy as np
import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from boxes_by_hand import A, B, instances, pixels_of, two_runs

from alwa_d2.analysis import sheet as sheet_module
from alwa_d2.analysis.matching import Sample, match

HALF_A = [10, 10, 30, 20]  # IoU with A: 200 / 400
LESS_A = [10, 10, 30, 19]  # IoU with A: 180 / 400


def test_matching():
    truth = instances([A, B], [0, 1])

    def matched(boxes, classes, scores):
        return match(truth, instances(boxes, classes, scores))

    assert matched([A, B], [0, 1], [0.9, 0.8]) == ([True, True], [False, False])
    assert matched([A, B], [1, 1], [0.9, 0.8]) == ([False, True], [True, False])  # class
    assert matched([HALF_A], [0], [0.9]) == ([True], [False, True])
    assert matched([LESS_A], [0], [0.9]) == ([False], [True, True])
    # One box is matched once: by the surest, not by the best fitting or the first.
    assert matched([A, HALF_A], [0, 0], [0.6, 0.9]) == ([False, True], [False, True])
    assert matched([], [], []) == ([], [True, True])
    nothing = instances([], [])
    assert match(nothing, instances([A], [0], [0.9])) == ([False], [])


def test_a_detection_takes_the_best_box_that_is_left():
    near = [12, 10, 32, 30]  # IoU with A: 360 / 440
    truth = instances([A, near], [0, 0])
    found = instances([A, A], [0, 0], [0.9, 0.8])
    assert match(truth, found) == ([True, True], [False, False])


def test_marks_tell_true_false_and_missed_apart():
    truth = instances([A, B], [0, 1])
    found = instances([A, [100, 50, 120, 70]], [0, 7], [0.9, 0.555])
    image = np.zeros((100, 160, 3), np.uint8)
    left, right = sheet_module.marks(Sample("a", image, truth, found), ["cat", "dog"])
    assert [(mark.box, mark.text, mark.style) for mark in left] == [
        (A, "cat", sheet_module.TRUTH),
        (B, "dog", sheet_module.TRUTH),
    ]
    # Lowest score first, so that the surest is drawn on top.
    assert [(mark.text, mark.style) for mark in right] == [
        ("dog", sheet_module.MISSED),
        ("class 7 0.56", sheet_module.FALSE),
        ("cat 0.90", sheet_module.TRUE),
    ]
    assert left[0].moved(2.0, 5, 7).box == [25, 27, 65, 67]


def test_sheet():
    grey = np.full((100, 160, 3), 127, np.uint8)
    truth = instances([A, B], [0, 1])
    found = instances([A, [100, 50, 120, 70]], [0, 0], [0.9, 0.6])
    samples = [Sample(f"image {i}", grey, truth, found) for i in range(3)]
    sheet = sheet_module.make_sheet(samples, ["cat", "dog"], "a title", tile=320)
    # Two rows of two pairs, images enlarged to 320 x 200.
    assert sheet.width == 4 * 320 + 7 * sheet_module.GAP
    assert sheet.height == sheet_module.HEADER + 2 * (sheet_module.TITLE + 200 + sheet_module.GAP)
    first = sheet.crop(
        (
            sheet_module.GAP,
            sheet_module.HEADER + sheet_module.TITLE,
            sheet_module.GAP + 320,
            sheet.height,
        )
    )
    second = sheet.crop(
        (
            sheet_module.GAP + 320 + sheet_module.GAP,
            sheet_module.HEADER + sheet_module.TITLE,
            660,
            sheet.height,
        )
    )
    assert pixels_of(first, sheet_module.TRUTH.colour) and not pixels_of(
        second, sheet_module.TRUTH.colour
    )
    for style in (sheet_module.TRUE, sheet_module.FALSE, sheet_module.MISSED):
        assert pixels_of(second, style.colour) and not pixels_of(first, style.colour), style
    # A's outline, twice as large as in the image.
    left, top = sheet_module.GAP + 20, sheet_module.HEADER + sheet_module.TITLE + 20
    assert all(
        sheet.getpixel((left, y)) == sheet_module.TRUTH.colour for y in range(top + 1, top + 40)
    )


def test_sheet_without_detections_or_ground_truth():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    sample = Sample("a" * 300, image, instances([A], [0]), instances([], [], []))
    sheet = sheet_module.make_sheet([sample], ["cat"], "a title")
    assert pixels_of(sheet, sheet_module.MISSED.colour) > 1000  # in the legend and on the tile
    nothing = Sample("b", image, instances([], []), instances([], [], []))
    sheet = sheet_module.make_sheet([nothing], ["cat"], "a title")
    assert sheet.width >= sheet_module.legend_places(Counter())[1]


def test_labels_stay_inside_and_off_each_other():
    frame, size = (0, 0, 100, 100), (40, 14)
    corner = sheet_module.place_label(size, (90, -5, 120, 20), frame, [])
    assert corner[0] >= 0 and corner[1] >= 0 and corner[2] <= 100 and corner[3] <= 100
    first = sheet_module.place_label(size, (20, 40, 70, 80), frame, [])
    second = sheet_module.place_label(size, (20, 40, 70, 80), frame, [first])
    assert first == (20, 26, 60, 40)  # on top of the box, where it starts
    across = min(first[2], second[2]) - max(first[0], second[0])
    down = min(first[3], second[3]) - max(first[1], second[1])
    assert across <= 0 or down <= 0


def test_the_sheet_of_two_runs():
    rows = list(zip(*two_runs()))
    sheet = sheet_module.make_comparison(
        rows, ["A one", "B two"], ["cat", "dog"], "a title", tile=320
    )
    # An image a row, three tiles each, enlarged to 320 x 200.
    assert sheet.width == 3 * 320 + 4 * sheet_module.GAP
    assert sheet.height == sheet_module.HEADER + 2 * (sheet_module.TITLE + 200 + sheet_module.GAP)
    top = sheet_module.HEADER + sheet_module.TITLE
    starts = [sheet_module.GAP + column * (320 + sheet_module.GAP) for column in range(3)]
    tiles = [sheet.crop((x, top, x + 320, top + 200)) for x in starts]
    shown = [
        [bool(pixels_of(tile, style.colour)) for style in sheet_module.STYLES] for tile in tiles
    ]  # truth, true, false, missed
    assert shown == [
        [True, False, False, False],
        [False, True, True, False],
        [False, True, True, True],
    ]


def test_a_header_is_never_cut():
    """The last of the legend's texts and the title end on the sheet, however small the pictures."""
    rows = list(zip(*two_runs()))
    for title, tile in (("a title", 20), ("a title of many words " * 10, 20), ("a title", 320)):
        sheet = sheet_module.make_comparison(
            rows, ["A one", "B two"], ["cat", "dog"], title, tile=tile
        )
        whole = sheet_module.make_comparison(
            rows, ["A one", "B two"], ["cat", "dog"], title, tile=900
        )
        box = (0, 0, min(sheet.width, whole.width), sheet_module.HEADER)
        assert pixels_of(sheet.crop(box), sheet_module.BLACK) == pixels_of(
            whole.crop((0, 0, whole.width, sheet_module.HEADER)), sheet_module.BLACK
        )
