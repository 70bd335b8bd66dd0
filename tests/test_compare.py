"""False positives at equal recall, and the sheet of two runs, on detections made by hand."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPO
from PIL import Image
from test_tools import A, B, instances, load, pixels_of

ELSEWHERE = [100, 50, 120, 70]


@pytest.fixture(scope="module")
def show():
    pytest.importorskip("detectron2", reason="needs Detectron2")
    for name in ("sheet", "equal_recall"):
        load(name)
    return load("show_detections")


@pytest.fixture(scope="module")
def equal_recall(show):
    return sys.modules["equal_recall"]


@pytest.fixture(scope="module")
def sheets(show):
    return sys.modules["sheet"]


def test_false_positives_at_equal_recall(equal_recall):
    # By falling score: T F T F F T, four boxes.
    scores, hits = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 0, 1]
    curve = equal_recall.Curve(scores[::-1], hits[::-1], 4)  # in any order
    assert curve.at(0.25) == (0.9, 0) and curve.at(0.2) == (0.9, 0)
    assert curve.at(0.26) == (0.7, 1) and curve.at(0.5) == (0.7, 1)
    assert curve.at(0.75) == (0.4, 3) and curve.at(0.76) is None
    assert curve.best == 0.75
    assert [curve.recall_at(score) for score in (0.95, 0.7, 0.5, 0.0)] == [0, 0.5, 0.5, 0.75]


def test_detections_of_one_score_are_taken_together(equal_recall):
    curve = equal_recall.Curve([0.9, 0.5, 0.5, 0.5], [True, True, False, False], 2)
    assert curve.at(0.5) == (0.9, 0) and curve.at(1.0) == (0.5, 2)


def test_no_detections_and_no_boxes(equal_recall):
    nothing = equal_recall.Curve([], [], 3)
    assert nothing.best == nothing.recall_at(0.5) == 0 and nothing.at(0.5) is None
    no_boxes = equal_recall.Curve([0.9], [False], 0)
    assert no_boxes.best == no_boxes.recall_at(0.5) == 0 and no_boxes.at(0.5) is None


def two_runs(sheets):
    """Two images of each run, four boxes: A finds all by 0.6, B two of them at 0.5."""
    grey = np.full((100, 160, 3), 127, np.uint8)
    truth = instances([A, B], [0, 1])

    def sample(name, boxes, classes, scores):
        return sheets.Sample(name, grey, truth, instances(boxes, classes, scores))

    first = [
        sample("1", [A, B, ELSEWHERE], [0, 1, 0], [0.9, 0.8, 0.3]),
        sample("2", [A, B], [0, 1], [0.7, 0.6]),
    ]
    second = [
        sample("1", [A, ELSEWHERE, B], [0, 0, 0], [0.9, 0.8, 0.7]),  # B's class is wrong
        sample("2", [A, ELSEWHERE, B], [0, 0, 1], [0.6, 0.5, 0.4]),
    ]
    return first, second


def test_the_table_of_two_runs(sheets, equal_recall):
    curves = [equal_recall.curve_of(samples) for samples in two_runs(sheets)]
    # First: T 0.9, T 0.8, T 0.7, T 0.6, F 0.3. Second: T 0.9, F 0.8, F 0.7, T 0.6, F 0.5, T 0.4.
    assert equal_recall.common_recall(curves, 0.5) == 0.5
    assert equal_recall.common_recall(curves, 0.85) == 0.25
    assert equal_recall.common_recall(curves, None) == 0.5
    table = equal_recall.false_positive_table(curves, ["A one", "B two"], 0.5)
    assert [line.split() for line in table.splitlines()] == [
        "recall A one: FP (score) B two: FP (score) B - A".split(),
        "0.500* 0 (0.80) 2 (0.60) +2".split(),
        "0.600 0 (0.70) 3 (0.40) +3".split(),
        "0.700 0 (0.70) 3 (0.40) +3".split(),
        "0.800 0 (0.60) - -".split(),
        "0.900 0 (0.60) - -".split(),
        "* that of the picture".split(),
        "highest recall: A one 1.000, B two 0.750".split(),
    ]
    # One that finds one box of the four, and one that finds none.
    few, none = equal_recall.Curve([0.3], [True], 4), equal_recall.Curve([0.9], [False], 4)
    assert equal_recall.common_recall([curves[0], few], None) == 0.25
    assert equal_recall.common_recall([curves[0], none], None) == 0
    table = equal_recall.false_positive_table([curves[0], none], ["A one", "B two"], 0.0)
    assert "*" not in table


def test_the_sheet_of_two_runs(sheets):
    rows = list(zip(*two_runs(sheets)))
    sheet = sheets.make_comparison(rows, ["A one", "B two"], ["cat", "dog"], "a title", tile=320)
    # An image a row, three tiles each, enlarged to 320 x 200.
    assert sheet.width == 3 * 320 + 4 * sheets.GAP
    assert sheet.height == sheets.HEADER + 2 * (sheets.TITLE + 200 + sheets.GAP)
    top = sheets.HEADER + sheets.TITLE
    starts = [sheets.GAP + column * (320 + sheets.GAP) for column in range(3)]
    tiles = [sheet.crop((x, top, x + 320, top + 200)) for x in starts]
    shown = [
        [bool(pixels_of(tile, style.colour)) for style in sheets.STYLES] for tile in tiles
    ]  # truth, true, false, missed
    assert shown == [
        [True, False, False, False],
        [False, True, True, False],
        [False, True, True, True],
    ]


def test_a_header_is_never_cut(sheets):
    """The last of the legend's texts and the title end on the sheet, however small the pictures."""
    rows = list(zip(*two_runs(sheets)))
    for title, tile in (("a title", 20), ("a title of many words " * 10, 20), ("a title", 320)):
        sheet = sheets.make_comparison(rows, ["A one", "B two"], ["cat", "dog"], title, tile=tile)
        whole = sheets.make_comparison(rows, ["A one", "B two"], ["cat", "dog"], title, tile=900)
        box = (0, 0, min(sheet.width, whole.width), sheets.HEADER)
        assert pixels_of(sheet.crop(box), sheets.BLACK) == pixels_of(
            whole.crop((0, 0, whole.width, sheets.HEADER)), sheets.BLACK
        )


def run_folder(path):
    path.mkdir()
    for name in ("config.yaml", "model_final.pth"):
        (path / name).touch()
    return path


@pytest.fixture
def data(tmp_path):
    """Three images of 160 x 100 pixels with the boxes A and B each."""
    from detectron2.data import DatasetCatalog
    from detectron2.structures import BoxMode

    Image.new("RGB", (160, 100), (127, 127, 127)).save(tmp_path / "grey.png")
    boxes = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": number}
        for number, box in enumerate((A, B))
    ]
    records = [
        {"file_name": str(tmp_path / "grey.png"), "image_id": k, "annotations": boxes}
        for k in range(3)
    ]
    DatasetCatalog.register("three_images", lambda: records)
    yield "three_images"
    DatasetCatalog.remove("three_images")


def test_two_run_folders_are_compared_over_the_whole_set(show, data, tmp_path, monkeypatch, capsys):
    folders = [run_folder(tmp_path / f"{name}-0123456789ab") for name in ("one", "two")]
    found = {
        "one": instances([A, B, ELSEWHERE], [0, 1, 0], [0.9, 0.8, 0.1]),
        "two": instances([A, ELSEWHERE], [0, 1], [0.6, 0.55]),
    }
    seen = []

    def setup_cfg(config, opts):
        seen.append((config, opts))
        model = SimpleNamespace(WEIGHTS=opts[-1])
        return SimpleNamespace(MODEL=model, DATASETS=SimpleNamespace(TEST=(data,)))

    def predictor(cfg):
        name = cfg.MODEL.WEIGHTS.split("/")[-2].split("-")[0]
        return lambda image: {"instances": found[name]}

    monkeypatch.setattr(show, "DefaultPredictor", predictor)
    arguments = ["--compare", *map(str, folders), "--num-images", "2", "MODEL.DEVICE", "cpu"]
    args = show.parse(arguments)
    _, samples = show.load_run_samples(str(folders[0]), args, setup_cfg)
    assert [s.image.shape for s in samples] == [(100, 160, 3), (0, 0, 3), (100, 160, 3)]
    seen.clear()
    output = show.compare(args, setup_cfg)
    assert output == folders[0] / "comparison.png" and output.exists()
    assert seen[1] == (
        str(folders[1] / "config.yaml"),
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", str(folders[1] / "model_final.pth")],
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "three_images: 3 images, 6 boxes"
    assert printed[1].split("  ")[1:3] == ["A one: FP (score)", "B two: FP (score)"]
    # At 0.5 the second finds three of six; the first does at 0.9, without a mistake in any image.
    assert printed[2].split() == "0.500* 0 (0.90) 0 (0.60) +0".split()
    with Image.open(output) as picture:
        assert picture.height == 62 + 2 * (22 + 200 + 10)  # two of the three images


def test_other_test_sets_and_missing_files_are_refused(show, tmp_path, monkeypatch, capsys):
    one, two = (run_folder(tmp_path / name) for name in ("one", "two"))
    monkeypatch.setattr(show, "load_samples", lambda *args, **kwargs: [])

    def setup_cfg(config, opts):
        return SimpleNamespace(DATASETS=SimpleNamespace(TEST=(config.split("/")[-2],)))

    args = show.parse(["--compare", str(one), str(two)])
    with pytest.raises(sys.modules["runs"].ToolError, match="test sets are one and two"):
        show.compare(args, setup_cfg)
    (two / "model_final.pth").unlink()
    (one / "config.yaml").unlink()
    assert show.main(["--compare", str(one), str(two)]) == 2
    assert "config.yaml: no such file; expected the folder" in capsys.readouterr().err


def test_a_config_or_two_runs_but_not_both(show, capsys):
    for arguments in ([], ["--config-file", "a.yaml", "--compare", "a", "b"]):
        with pytest.raises(SystemExit):
            show.parse(arguments)
    assert "--compare" in capsys.readouterr().err


def test_every_tool_is_documented():
    pages = [REPO / "README.md", REPO / "Makefile", *(REPO / "docs").glob("*.md")]
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    scripts = [
        path for path in (REPO / "tools").glob("*.py") if "__main__" in path.read_text("utf-8")
    ]
    assert len(scripts) >= 6
    for script in scripts:
        assert f"tools/{script.name}" in text
        for option in re.findall(r'"(--[a-z-]+)"', script.read_text("utf-8")):
            assert option in text, f"{script.name} {option}"
