"""Sweeps' files: their cells and runs, what is refused, and our own."""

import csv
import dataclasses
import os
import shlex

import pytest
import yaml
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from sweep_stub import content, stubbed_folder, sweep, thresholds, write  # noqa: F401 (a fixture)
from tiny_voc import make_voc_root  # noqa: F401 (a fixture)

from alwa_d2.cli.main import make_parser
from alwa_d2.data import SHAPES_CLASSES
from alwa_d2.data.shapes import default_root
from alwa_d2.sweep.plan import hash_settings, make_runs
from alwa_d2.sweep.read import read_sweep

SWEEPS = sorted((REPO / "sweeps").glob("*.yaml"))


def test_the_hash_is_that_of_the_settings(folder):
    def hashes(**changes):
        spec = read_sweep(folder / write(folder, **changes), [])
        return [run.hash for run in make_runs(spec)]

    first = hashes()
    assert len(set(first)) == 6
    assert hashes(output="elsewhere") == first
    assert hashes(seeds=[2, 1, 0]) == [first[i] for i in (2, 1, 0, 5, 4, 3)]
    # The config's own value, said once more; then another one.
    assert hashes(opts={"MODEL.RPN.NMS_THRESH": 0.7, "SOLVER.MAX_ITER": 1000}) == first
    assert not set(hashes(opts={"SOLVER.MAX_ITER": 999})) & set(first)


def test_folders_of_long_labels_in_any_letters_can_be_made(folder):
    weights = content()["grid"]["weights"]
    grid = {"weights": {"\u6743" * 100: weights.popitem()[1], **weights}}
    spec = read_sweep(folder / write(folder, grid=grid, baseline={}), [])
    for run in make_runs(spec):
        assert len(run.folder.name.encode()) <= 255 and "\ufffd" not in run.folder.name
        run.folder.mkdir(parents=True)


def test_cells_may_have_other_data_of_one_name(folder, voc_root):
    """As where the amount of data is an axis: each run is a process of its own."""

    def part(text):
        entry = {"name": "some", "format": "voc", "root": str(voc_root), "part": text}
        return {"DATASETS.REGISTER": [entry]}

    grid = {**content()["grid"], "data": {"half": part("first 50%"), "all": part("first 100%")}}
    spec = read_sweep(folder / write(folder, grid=grid), [])
    assert len(make_runs(spec)) == 2 * 2 * 3 and "some" not in DatasetCatalog


def test_exclude_and_include(folder):
    grid = {**content()["grid"], "nms": thresholds(low=0.3, high=0.6)}
    own = {"MODEL.LOSS_WEIGHTER.WEIGHTS": [0.25, 1.0]}
    path = write(
        folder, grid=grid, opts={}, seeds=[0], exclude=[{"weights": "1.0:1", "nms": "high"}],
        include=[{"weights": "quarter", "nms": "low", "opts": own}],
    )  # fmt: skip
    spec = read_sweep(folder / path, [])
    assert [cell.name for cell in spec.cells] == [
        *("1.0:1 low", "0.5:1 low", "0.5:1 high", "quarter low"),
    ]
    assert spec.cells[-1].settings == {
        "MODEL.RPN.NMS_THRESH": "0.3",
        "MODEL.LOSS_WEIGHTER.WEIGHTS": "[0.25, 1.0]",
    }
    # The baseline of a cell has its other labels; that of the third was excluded.
    bases = [spec.baseline_of(cell) for cell in spec.cells]
    assert [base and base.name for base in bases] == ["1.0:1 low", "1.0:1 low", None, "1.0:1 low"]


WEIGHTS = "MODEL.LOSS_WEIGHTER.WEIGHTS"


@pytest.mark.parametrize(
    "changes, opts, words",
    [
        ({"opts": {"MODEL.ALWA.INTERVALL": 5}}, [], "Non-existent key: MODEL.ALWA.INTERVALL"),
        ({"opts": {"MODEL.ALWA.INTERVAL": "often"}}, [], "MODEL.ALWA.INTERVAL"),
        ({"opts": {"MODEL.LOSS_WEIGHTER.NAME": "Famo"}}, [], "NAME: expected one of ALWA, CoV"),
        ({"opts": {"DATASETS.REGISTER": [{"name": "x"}]}}, [], 'key "format"'),
        ({"opts": {"SEED": 1}}, [], "opts: SEED can't be set, `seeds` has them"),
        ({"opts": {"MODEL": {"ALWA": {}}}}, [], "opts.MODEL: expected a value"),
        ({"opts": [1]}, [], "opts: expected a mapping KEY: VALUE, got [1]"),
        ({"jobs": 2}, [], "the file: expected the keys config, output"),
        ({"config": "configs/none.yaml"}, [], "a.yaml: config: "),
        ({"output": 3}, [], "output: expected a text"),
        ({"seeds": [0, "1"]}, [], "seeds: expected a list of whole numbers"),
        ({"seeds": []}, [], "seeds: expected at least one"),
        ({"seeds": [1, 1]}, [], "seeds: expected at least one, each of them once"),
        ({"metrics": "bbox/AP"}, [], "metrics: expected a list of names"),
        ({"grid": {"weights": {}}}, [], "grid.weights: expected at least one label"),
        ({"grid": {"weights": {61: {}}}}, [], "grid.weights: expected names that are texts"),
        ({"grid": {"weights": {"a": 3}}}, [], "grid.weights.a: expected a mapping"),
        ({"grid": {"a": {"b": {"SEED": 3}}}}, [], "grid.a.b: SEED can't be set"),
        ({"grid": {"weights": {"a": {}, "b": {}}}, "baseline": {}}, [], "the same settings"),
        ({"grid": {"a": thresholds(x=1), "b": thresholds(x=2)}}, [], "grid.b sets MODEL.RPN.NMS"),
        ({"baseline": {"weights": "2:1"}}, [], "baseline.weights: expected one of 0.5:1, 1.0:1"),
        ({"baseline": {"width": "1.0:1"}}, [], "baseline: expected an axis of the grid (weights)"),
        ({"exclude": [{"weights": "2:1"}]}, [], "exclude[0].weights: expected one of"),
        ({"exclude": [{}]}, [], "exclude[0]: expected at least one axis"),
        ({"include": [{"opts": {}}]}, [], "include[0]: expected a label for each of weights"),
        ({"include": [{"weights": "1.0:1"}]}, [], "the cell '1.0:1' is there already"),
        ({}, ["SOLVER.MAX_ITER"], "KEY VALUE: expected pairs"),
        ({}, [WEIGHTS, "[1, 1]"], f"grid.weights sets {WEIGHTS}, and so does the command line"),
        ({}, ["OUTPUT_DIR", "x"], "OUTPUT_DIR can't be set"),
    ],
)  # fmt: skip
def test_refused_before_anything_ran(folder, capsys, changes, opts, words):
    assert sweep(write(folder, **changes), *opts) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error and error.startswith("alwa-d2 sweep: ") and ("a.yaml" in error or opts)
    assert not (folder / "out").exists()


def test_unknown_options_are_no_settings(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep(write(folder), "--jobs", "1", "SOLVER.MAX_ITER", "7", "--colour")
    assert "--colour" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, words",
    [("a: [", "expected YAML"), ("seeds: [0]\nseeds: [1]", "'seeds' is there twice"), ("", "None")],
)
def test_files_that_are_no_sweeps(folder, capsys, text, words):
    (folder / "a.yaml").write_text(text)
    assert sweep("a.yaml") == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert sweep("none.yaml") == 2
    assert "none.yaml" in capsys.readouterr().err


def test_the_example_of_the_docs(tmp_path):
    page = (REPO / "docs" / "experiments.md").read_text().partition("### The file")[2]
    (tmp_path / "a.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    spec = read_sweep(tmp_path / "a.yaml", [])
    names = ["giou 1:1", "giou ALWA", "ciou 1:1", "giou 0.5:1"]
    assert [cell.name for cell in spec.cells] == names
    assert len(make_runs(spec)) == 12
    assert spec.best.seeds == [3, 4, 5]


@pytest.fixture
def registered(path, request):
    """The opts with which a sweep of ours finds its data sets here; forgotten again after the test."""
    entries = yaml.safe_load(path.read_text())["opts"].get("DATASETS.REGISTER", [])
    # The embedded set may not be drawn yet: any folder in VOC layout will do, no image is read.
    root = request.getfixturevalue("bccd" if "bccd" in path.stem else "voc_root")
    entries = [{**entry, "root": str(root)} for entry in entries]
    yield ["DATASETS.REGISTER", repr(entries)] if entries else []
    for entry in entries:
        DatasetCatalog.pop(entry["name"], None)
        MetadataCatalog.pop(entry["name"], None)


def test_our_own_sweeps_share_runs():
    names = ("table2", "table1", "freezing", "two_stage", "focal_gamma", "long")
    specs = {name: read_sweep(REPO / f"sweeps/{name}.yaml", []) for name in names}
    runs = {name: {run.hash for run in make_runs(s)} for name, s in specs.items()}
    seen, shared = set(), 0
    for name in names:
        reused = [runs[folder.name] for folder in specs[name].reuse]
        assert runs[name] & seen <= set().union(*reused)
        shared += len(runs[name] & seen)
        seen |= runs[name]
    assert f"share {shared} of their runs" in (REPO / "docs" / "experiments.md").read_text()


def test_many_classes_are_those_of_the_embedded_set_and_empty_ones():
    sweep = yaml.safe_load((REPO / "sweeps" / "many_classes.yaml").read_text())
    for entry in sweep["opts"]["DATASETS.REGISTER"]:
        assert os.path.basename(entry["root"]) == os.path.basename(default_root())
        assert tuple(entry["classes"][:5]) == SHAPES_CLASSES
        assert len(set(entry["classes"])) == sweep["opts"]["MODEL.RETINANET.NUM_CLASSES"]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_our_own_sweeps(path, registered):
    spec = read_sweep(path, registered)
    five = list(range(5))
    seeds = {"bccd": [0], "weighters": [0, 1]}
    seeds |= dict.fromkeys(("learning_rate", "learning_rate_adamw", "few_images"), five)
    best = ("weighters_rates", "weighters_two_stage", "weighters_long", "weighters_long_rates")
    seeds |= dict.fromkeys(best, [2, 3, 4, 5, 6])  # the seeds of `best` in weighters.yaml
    seeds |= dict.fromkeys(
        ("rising", "uncertainty", "uncertainty_long"), [7, 8, 9, 10, 11]
    )  # that chose nothing
    seeds["two_stage_balance"] = list(range(7, 17))
    seeds["rising_bccd"] = list(range(7, 15))
    seeds["weighters_tuned"] = [12, 13, 14, 15, 16]
    seeds["inverse"] = list(range(17, 27))
    assert spec.seeds == seeds.get(path.stem, [0, 1, 2])
    assert all(map(spec.baseline_of, spec.cells))
    runs = make_runs(spec)
    # The number that the file names.
    assert f": {len(runs)} runs." in path.read_text().split("config:")[0]
    assert os.path.relpath(spec.output) == os.path.join("output", "sweeps", path.stem)


def on_blood_cells():
    """KEY VALUE of the command that docs/results/weighters.md gives for them."""
    page = (REPO / "docs" / "results" / "weighters.md").read_text(encoding="utf-8")
    command = page.split("## On blood cells")[1].split("```bash\n")[1].split("```")[0]
    return make_parser().parse_args(shlex.split(command.replace("\\\n", " "))[1:]).opts


@pytest.mark.parametrize(
    "name",
    ["bccd", "many_classes", "table1", "table2", "rising"]
    + ["weighters", "weighters_best", "weighters_bccd", "weighters_bccd_best"]
    + ["weighters_rates", "uncertainty"]
    + ["learning_rate", "learning_rate_adamw"]
    + ["weighters_tuned", "inverse", "weighters_two_stage", "two_stage_balance", "rising_bccd"]
    + ["weighters_long", "weighters_long_rates", "uncertainty_long", "few_images"],
)
def test_published_results_are_found_by_their_hashes(name):
    """--results docs/results/NAME.csv must find every run, whatever became of code and configs."""
    with open(REPO / "docs" / "results" / f"{name}.csv", encoding="utf-8", newline="") as file:
        published = {row["hash"]: row for row in csv.DictReader(file)}
    if name.startswith("weighters_bccd"):
        spec = read_sweep(REPO / "sweeps" / "weighters.yaml", on_blood_cells())
    else:
        spec = read_sweep(REPO / "sweeps" / f"{name.removesuffix('_best')}.yaml", [])
    if name.endswith("_best"):
        spec = dataclasses.replace(spec, seeds=spec.best.seeds)
    runs = [
        (digest, {**cell.labels, "seed": str(seed)})
        for cell in spec.cells
        for seed, digest in zip(spec.seeds, hash_settings(spec, cell))
    ]
    hint = "has the config a new key, or another default? config.py has HASHED_KEYS for the former"
    labels = dict(runs)
    assert published.keys() <= labels.keys(), hint
    if not name.endswith("_best"):  # the former has only the best cells
        assert len(published) == len(labels)
    for digest, row in published.items():
        assert labels[digest].items() <= row.items()
