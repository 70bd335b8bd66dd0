"""`alwa-d2 compare`: tables of runs made by hand; two runs' detections, by a stand-in for the model."""

import csv
import re
from types import SimpleNamespace

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from boxes_by_hand import ELSEWHERE, A, B, instances
from PIL import Image
from run_folders import config, records, write_run

from alwa_d2.analysis import compare_detections as module
from alwa_d2.analysis import detections
from alwa_d2.analysis.compare_runs import compare_runs, format_table, names_of
from alwa_d2.analysis.runs import load_run
from alwa_d2.cli.main import main
from alwa_d2.errors import UserError


def with_classes(cat, time):
    """Lines of a run that has scores of single classes, and the seconds of its iterations."""
    *lines, scores = records()
    lines = [line | {"time": time + 0.1 * index} for index, line in enumerate(lines)]
    return [*lines, scores | {"bbox/AP-cat": cat, "bbox/AP50-cat": 1.0, "segm/AP": 12.25}]


@pytest.fixture
def two_folders(tmp_path):
    """Runs with other rules and folders; the second has neither times nor classes, and a key more."""
    first = config() | {"OUTPUT_DIR": "one", "SOLVER": {"BASE_LR": 0.01, "STEPS": [60, 80]}}
    second = config(rule="balance") | {"OUTPUT_DIR": "two", "SOLVER": {"BASE_LR": 0.01}, "NEW": 1}
    return [
        write_run(tmp_path / "first-0123456789ab", with_classes(33.5, 0.2), first),
        write_run(tmp_path / "second", None, second),
    ]


def cells(text):
    """First cell -> all others, of the lines of a table."""
    found = [line.split("  ") for line in text.splitlines() if not line.startswith("--")]
    found = [[cell.strip() for cell in line if cell.strip()] for line in found]
    return {first: rest for first, *rest in found}


def test_scores_weights_time_and_settings_stand_side_by_side(two_folders, capsys):
    assert main(["compare", *map(str, two_folders)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == ["first", "second"]
    assert {k: v for k, v in list(cells(printed).items())[1:]} == {
        "AP": ["40.2", "40.2"],
        "AP50": ["71.5", "71.5"],
        "AP75": ["39.0", "39.0"],
        "segm/AP": ["12.2", "-"],
        "AP-cat": ["33.5", "-"],
        "final weight of loss_cls": ["0.500", "0.500"],
        "final weight of loss_box_reg": ["1.000", "1.000"],
        # 0.2, 0.3, ... 1.1: the median lies half way between 0.6 and 0.7.
        "seconds per iteration": ["0.650", "-"],
        "iterations": ["200", "200"],
        "MODEL.ALWA.RULE": ["authors", "balance"],
        "SOLVER.STEPS": ["[60, 80]", "-"],
        "NEW": ["-", "1"],
    }


def test_the_csv_has_a_row_for_each_run_unrounded(two_folders, tmp_path, capsys):
    output = tmp_path / "new" / "runs.csv"
    assert main(["compare", *map(str, two_folders), "--csv", str(output)]) == 0
    assert f"wrote {output}" in capsys.readouterr().out
    with output.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert [first["run"], second["run"]] == list(map(str, two_folders))
    assert (first["bbox/AP"], first["bbox/AP-cat"], first["segm/AP"]) == ("40.25", "33.5", "12.25")
    assert float(first["seconds per iteration"]) == pytest.approx(0.65)
    assert (second["segm/AP"], second["SOLVER.STEPS"], second["NEW"]) == ("", "", "1")
    assert "OUTPUT_DIR" not in first


def test_equal_settings_and_equal_names(tmp_path):
    folders = [str(write_run(tmp_path / parent / "run")) for parent in "abc"]
    runs = [load_run(folder) for folder in folders]
    assert names_of(runs, folders) == folders
    table = format_table(["a", "b", "c"], compare_runs(runs))
    assert table.endswith("\nThe settings are the same (OUTPUT_DIR, OVERWRITE apart).")
    assert table.splitlines()[0].split() == ["a", "b", "c"]


def test_long_settings_are_wrapped(tmp_path):
    runs = [
        load_run(
            write_run(tmp_path / name, settings=config() | {"DATASETS": {"TRAIN": [name] * 30}})
        )
        for name in ("some", "others")
    ]
    table = format_table(["a", "b"], compare_runs(runs))
    assert max(map(len, table.splitlines())) < 100 and table.count("'others'") == 30


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["a"], "expected two or more runs, got one OUTPUT_DIR"),
        (["a", "b", "c", "--detections"], "--detections: expected two runs, got 3"),
        (["a", "b", "--output", "a.png"], "--output: goes with --detections alone"),
        (["a", "b", "--num-images", "8"], "--num-images: goes with --detections alone"),
        (["a", "b", "--score-thresh", "0.0"], "--score-thresh: goes with --detections alone"),
        (["a", "b", "--opts", "MODEL.DEVICE", "cpu"], "--opts: goes with --detections alone"),
        (["a", "b"], "a/metrics.json: no such file; expected the folder of a finished run"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr().err == f"alwa-d2 compare: {message}\n"


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


def detection_folder(path):
    write_run(path)
    (path / "model_final.pth").touch()
    return path


def test_two_run_folders_are_compared_over_the_whole_set(data, tmp_path, monkeypatch, capsys):
    folders = [detection_folder(tmp_path / f"{name}-0123456789ab") for name in ("one", "two")]
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
        return lambda path: found[name]

    monkeypatch.setattr(detections, "load_predictor", predictor)
    monkeypatch.setattr(module, "setup_cfg", setup_cfg)
    _, _, samples = module.load_run_samples(str(folders[0]), None, 2, ["MODEL.DEVICE", "cpu"])
    assert [s.image.shape for s in samples] == [(100, 160, 3), (0, 0, 3), (100, 160, 3)]
    seen.clear()
    arguments = ["--detections", "--num-images", "2", "--opts", "MODEL.DEVICE", "cpu"]
    assert main(["compare", *map(str, folders), *arguments]) == 0
    output = folders[0] / "comparison.png"
    assert output.exists()
    assert seen[1] == (
        str(folders[1] / "config.yaml"),
        ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", str(folders[1] / "model_final.pth")],
    )
    table, printed = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[0].split() == ["one", "two"]
    printed = printed.splitlines()
    assert printed[0] == "three_images: 3 images, 6 boxes"
    assert re.split(" {2,}", printed[1].strip())[1:3] == ["A one: FP (score)", "B two: FP (score)"]
    # At 0.5 the second finds three of six; the first does at 0.9, without a mistake in any image.
    assert printed[2].split() == "0.500* 0 (0.90) 0 (0.60) +0".split()
    assert printed[-1] == f"wrote {output}"
    with Image.open(output) as picture:
        assert picture.height == 62 + 2 * (22 + 200 + 10)  # two of the three images


def test_other_test_sets_and_missing_files_are_refused(tmp_path, monkeypatch, capsys):
    one, two = (detection_folder(tmp_path / name) for name in ("one", "two"))
    monkeypatch.setattr(module, "load_samples", lambda *args, **kwargs: [])

    def setup_cfg(config, opts):
        return SimpleNamespace(DATASETS=SimpleNamespace(TEST=(config.split("/")[-2],)))

    monkeypatch.setattr(module, "setup_cfg", setup_cfg)
    with pytest.raises(UserError, match="test sets are one and two"):
        module.compare_detections((str(one), str(two)))
    (two / "model_final.pth").unlink()
    assert main(["compare", str(one), str(two), "--detections"]) == 2
    assert "model_final.pth: no such file; expected the folder" in capsys.readouterr().err


def voc_folder(root, names, box=(11, 11, 30, 30)):
    """Grey pictures of 160 x 100 with a cell each, all of them for training, the first for tests."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    tags = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box))
    for name in names:
        Image.new("RGB", (160, 100), (127, 127, 127)).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(
            "<annotation><size><width>160</width><height>100</height></size>"
            f"<object><name>cell</name><bndbox>{tags}</bndbox></object></annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("\n".join(names))
    (root / "ImageSets/Main/test.txt").write_text(names[0])
    return root


def trained_on(root, folder):
    """The folder of a run with the config that it would have."""
    sets = [
        {"name": f"one_name_{split}", "format": "voc", "root": str(root), "split": split}
        for split in ("train", "test")
    ]
    datasets = {"REGISTER": sets, "TRAIN": ["one_name_train"], "TEST": ["one_name_test"]}
    model = {"META_ARCHITECTURE": "RetinaNet", "RETINANET": {"NUM_CLASSES": 1}}
    settings = config() | {"DATASETS": datasets, "MODEL": config()["MODEL"] | model}
    write_run(folder, settings=settings)
    (folder / "model_final.pth").touch()
    return str(folder)


def test_runs_whose_training_sets_differ_under_one_name(tmp_path, monkeypatch, capsys):
    from detectron2.data import DatasetCatalog

    found = lambda path: instances([A], [0], [0.9])  # noqa: E731
    monkeypatch.setattr(detections, "load_predictor", lambda cfg: found)
    first = trained_on(voc_folder(tmp_path / "a", ["0", "1"]), tmp_path / "first")
    second = trained_on(voc_folder(tmp_path / "b", ["0", "2", "3"]), tmp_path / "second")
    assert main(["compare", first, second, "--detections"]) == 0
    assert "one_name_test: 1 image, 1 box" in capsys.readouterr().out
    assert "one_name_train" not in DatasetCatalog and "one_name_test" not in DatasetCatalog

    for root, names, box, difference in (
        ("c", ["0"], (11, 11, 31, 30), "differ, first in image 0;"),
        ("d", ["7"], (11, 11, 30, 30), "differ, first in image 0;"),
    ):
        other = trained_on(voc_folder(tmp_path / root, names, box), tmp_path / f"run_{root}")
        assert main(["compare", first, other, "--detections"]) == 2
        assert f"the runs' test sets one_name_test {difference}" in capsys.readouterr().err
