"""Sweeps: what is run, what is left after a kill or a failure, and the numbers of the table."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import yaml
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.data import DatasetCatalog, MetadataCatalog
from test_tools import load
from test_train_net import INTERVAL, voc_root  # noqa: F401 (a fixture)

from alwa_d2.data import SHAPES_CLASSES
from alwa_d2.data.shapes import default_root

sweep_plan, sweep_table, sweep_jobs, sweep = map(
    load, ("sweep_plan", "sweep_table", "sweep_jobs", "sweep")
)
ToolError = sweep_plan.ToolError
SWEEPS = sorted((REPO / "sweeps").glob("*.yaml"))

# What train_net.py leaves. Its AP is 10 times the classification weight, plus the seed squared.
STUB = """
import ast, json, os, sys, time
from pathlib import Path
opts = dict(zip(sys.argv[3::2], sys.argv[4::2]))
folder, seed = Path(opts["OUTPUT_DIR"]), int(opts["SEED"])
weight = ast.literal_eval(opts["MODEL.LOSS_WEIGHTER.WEIGHTS"])[0]
(folder / "begun").touch()
print("threads", os.environ["OMP_NUM_THREADS"])
if opts["MODEL.RPN.NMS_THRESH"] == "0.1":
    sys.exit("first line\\nRuntimeError: this one fails")
patience = time.monotonic() + 120
while opts["MODEL.RPN.NMS_THRESH"] == "0.2" and not Path("go").exists():
    assert time.monotonic() < patience, "a test that failed left this process behind"
    time.sleep(0.02)
with open(folder / "metrics.json", "w") as file:
    for i in range(3):
        pace = (1, 2, 9)[i] * (0.2 if weight < 1 else 0.1)
        print(json.dumps({"iteration": i, "time": pace, "alwa/weight_cls": weight}), file=file)
    print(json.dumps({"iteration": 3, "bbox/AP": 10 * weight + seed**2}), file=file)
"""


def content(**changes):
    """A sweep of two weights and two thresholds, which the stub takes for what it is to do."""
    weights = {f"{w}:1": {"MODEL.LOSS_WEIGHTER.WEIGHTS": [w, 1.0]} for w in (1.0, 0.5)}
    return {
        "config": "configs/retina_alwa.yaml",
        "output": "out",
        "opts": {"MODEL.RPN.NMS_THRESH": 0.7},
        "grid": {"weights": weights},
        "seeds": [0, 1, 2],
        "baseline": {"weights": "1.0:1"},
        "metrics": ["bbox/AP"],
        **changes,
    }


def thresholds(**labels):
    return {label: {"MODEL.RPN.NMS_THRESH": value} for label, value in labels.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with the stub in place of train_net.py."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_jobs, "TRAIN_NET", [sys.executable, str(tmp_path / "stub.py")])
    monkeypatch.setattr(sweep, "POLL", 0.02)
    return tmp_path


def write(folder, **changes):
    path = folder / "a.yaml"
    path.write_text(yaml.safe_dump(content(**changes), sort_keys=False))
    return str(path)


def rows(folder):
    with open(folder / "out" / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def records(folder):
    return {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("out/*/run.json")
    }


def table(folder):
    """The cells of results.md, by the cell's labels."""
    lines = (folder / "out" / "results.md").read_text().splitlines()
    cells = [[text.strip() for text in line.split("|")[1:-1]] for line in lines if "|" in line]
    return cells[0], {row[0]: row[1:] for row in cells[2:]}


# ---- statistics


@pytest.mark.parametrize(
    "x, a, b, expected",
    [
        (0.3, 1, 1, 0.3),  # uniform
        (0.3, 2, 1, 0.09),  # x^a
        (0.9, 1, 3, 0.999),  # 1 - (1 - x)^b
        (0.5, 7, 7, 0.5),  # symmetric
        (0.5, 0.5, 0.5, 0.5),
        (0.25, 0.5, 0.5, 1 / 3),  # 2/pi arcsin(sqrt(x))
        (0.0, 2, 3, 0.0),
        (1.0, 2, 3, 1.0),
    ],
)
def test_incomplete_beta(x, a, b, expected):
    assert sweep_table.incomplete_beta(x, a, b) == pytest.approx(expected, rel=1e-12)


def test_paired_p_is_that_of_students_own_example():
    """Student (1908): hours of sleep gained by ten patients with two drugs; t = 4.0621, p = 0.00283."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    differences = [b - a for a, b in zip(first, second)]
    assert sweep_table.paired_p(differences) == pytest.approx(0.00283289, abs=1e-8)
    assert sweep_table.paired_p([-d for d in differences]) == pytest.approx(0.00283289, abs=1e-8)


def test_paired_p_with_two_degrees_of_freedom():
    """There p = 1 - |t| / sqrt(t^2 + 2): differences 1, 2, 3 have t = 2 sqrt(3)."""
    assert sweep_table.paired_p([1, 2, 3]) == pytest.approx(1 - (12 / 14) ** 0.5, rel=1e-12)


def test_no_p_without_three_pairs_or_without_variance():
    assert sweep_table.paired_p([]) is sweep_table.paired_p([1.0, 2.0]) is None
    assert sweep_table.paired_p([0.1 + 0.2, 0.3, 0.3]) is sweep_table.paired_p([0.0] * 3) is None
    assert sweep_table.difference({0: 1.0, 1: 3.0}, {1: 1.5, 2: 9.0}) == "+1.5 (–)"
    assert sweep_table.difference({0: 1.0}, {1: 1.0}) == "–"


# ---- the table


def test_the_table_by_hand(folder):
    assert sweep.main([write(folder), "--jobs", "2"]) == 0
    header, cells = table(folder)
    assert header == ["weights", "seeds", "AP", "Δ AP (p)", "s/iter", "overhead %"]
    # 10, 11, 14: mean 35/3, variance ((5/3)^2 + (2/3)^2 + (7/3)^2) / 2 = 13/3, sd 2.08. Half the
    # weight is 5 less with each seed: no variance. The medians of 0.1 0.2 0.9 and of twice that.
    assert cells["1.0:1"] == ["3", "11.7 ± 2.1", "baseline", "0.200", "–"]
    assert cells["0.5:1"] == ["3", "6.7 ± 2.1", "-5.0 (–)", "0.400", "+100.0"]
    by_run = {(row["weights"], row["seed"]): row for row in rows(folder)}
    assert len(by_run) == 6
    row = by_run["0.5:1", "2"]
    assert (row["bbox/AP"], row["alwa/weight_cls"], row["status"]) == ("9.0", "0.5", "finished")
    assert float(row["seconds_per_iteration"]) == pytest.approx(0.4)
    assert float(row["wall_seconds"]) > 0


def results_of(scores, **changes):
    """A sweep's results made by hand: label -> seed -> AP."""
    cells = [sweep_plan.Cell({"w": label}, {}) for label in scores]
    settings = dict(seeds=[0, 1, 2, 3], baseline={"w": "a"}, metrics=["bbox/AP"]) | changes
    spec = SimpleNamespace(path=REPO / "x.yaml", cells=cells, **settings)
    spec.baseline_of = lambda cell: sweep_plan.Sweep.baseline_of(spec, cell)
    results = []
    for cell in cells:
        for seed, score in scores[cell.labels["w"]].items():
            run = sweep_plan.Run(cell, seed, "0", REPO / "none")
            results.append(
                sweep_table.Result(run, sweep_table.FINISHED, "", 1.0, {"bbox/AP": score}, {}, 0.1)
            )
    return spec, results


def test_differences_are_paired_over_the_common_seeds():
    scores = {"a": {0: 10.0, 1: 12.0, 2: 20.0}, "b": {0: 11.0, 1: 14.0, 2: 23.0, 3: 90.0}}
    text = sweep_table.to_markdown(*results_of(scores))
    # b: mean 138/4, variance (23.5^2 + 20.5^2 + 11.5^2 + 55.5^2) / 3 = 4185 / 3, sd 37.3.
    # Differences 1, 2, 3: p = 1 - sqrt(12/14) = 0.0742.
    assert "| b | 4 | 34.5 ± 37.3 | +2.0 (0.074) | 0.100 | +0.0 |" in text
    assert "| a | 3 | 14.0 ± 5.3 | baseline | 0.100 | – |" in text


def test_one_seed_has_no_sd_and_no_baseline_no_difference():
    text = sweep_table.to_markdown(*results_of({"a": {0: 10.0}, "b": {}}, baseline={}))
    assert "| a | 1 | 10.0 ± – | – | 0.100 | – |" in text
    assert "| b | 0 | – | – | – | – |" in text
    assert "No baseline is named." in text


def test_scores_that_are_no_numbers_are_left_out_and_named():
    nan = float("nan")
    scores = {"a": {0: 10.0, 1: 12.0, 2: 20.0}, "b": {0: 11.0, 1: nan, 2: 23.0}, "c": {0: nan}}
    text = sweep_table.to_markdown(*results_of(scores))
    # 11 and 23: sd sqrt(72); differences 1 and 3, too few for a p.
    assert "| b | 3 | 17.0 ± 8.5 | +2.0 (–) |" in text and "| c | 1 | – | – |" in text
    odd = text.split("Scores that are no numbers, left out above:\n")[1]
    assert "b seed 1" in odd and "c seed 0" in odd and odd.count("bbox/AP is nan") == 2


# ---- what is run


def test_finished_runs_are_not_repeated_and_labels_do_not_matter(folder):
    assert sweep.main([write(folder, seeds=[0])]) == 0
    before = {
        name: (folder / "out" / name / "begun").stat().st_mtime_ns for name in records(folder)
    }
    assert len(before) == 2
    grid = content()["grid"]["weights"]
    renamed = {"one": grid["1.0:1"], "half": grid["0.5:1"]}
    path = write(folder, grid={"w": renamed}, baseline={"w": "half"}, seeds=[0, 1])
    assert sweep.main([path]) == 0
    after = {name: (folder / "out" / name / "begun").stat().st_mtime_ns for name in records(folder)}
    assert len(after) == 4 and after.items() >= before.items()
    assert [row["status"] for row in rows(folder)] == ["finished"] * 4
    assert [row["w"] for row in rows(folder)] == ["one", "one", "half", "half"]


def test_finished_runs_of_another_sweep_are_reused_and_left_alone(folder):
    assert sweep.main([write(folder, seeds=[0, 1], output="other")]) == 0
    folders = sorted(folder.glob("other/*/run.json"))
    assert len(folders) == 4
    failed = json.loads(folders[0].read_text()) | {"status": 1}
    folders[0].write_text(json.dumps(failed))
    folders[1].unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("other/*/*")}
    grid = {"w": content()["grid"]["weights"]}
    changes = {"grid": grid, "baseline": {}, "seeds": [0, 1, 2], "reuse": ["other", "not_there"]}
    assert sweep.main([write(folder, **changes)]) == 0
    assert [row["status"] for row in rows(folder)] == ["finished"] * 6
    # Trained here: the third seed of both, and what has not finished there.
    assert len(records(folder)) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.glob("other/*/*")} == times
    assert [row["folder"].startswith("../other/") for row in rows(folder)].count(True) == 2


def test_a_reused_run_without_the_metric_is_not_trained_again(folder, capsys):
    assert sweep.main([write(folder, seeds=[0], output="other")]) == 0
    path = write(folder, seeds=[0], reuse=["other"], metrics=["bbox/APs"])
    assert sweep.main([path, "--retry-failed"]) == 1
    assert not records(folder) and len(list(folder.glob("other/*/begun"))) == 2
    text = (folder / "out" / "results.md").read_text()
    assert "Runs without the metric: 2" in text and "(`other/" in text
    # Its file damaged, it is a failed run, and still not ours.
    for file in folder.glob("other/*/metrics.json"):
        file.write_text("")
    assert sweep.main([path, "--retry-failed"]) == 1
    assert not records(folder) and "Failed runs: 2" in (folder / "out" / "results.md").read_text()


def test_a_reused_run_goes_before_a_failed_one_of_our_own(folder):
    assert sweep.main([write(folder, seeds=[0])]) == 0
    assert sweep.main([write(folder, seeds=[0], output="other")]) == 0
    for file in folder.glob("out/*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": 1, "error": []}))
    assert sweep.main([write(folder, seeds=[0], reuse=["other"])]) == 0
    assert [row["folder"].startswith("../other/") for row in rows(folder)] == [True, True]


def test_results_from_elsewhere_are_not_trained_again(folder):
    assert sweep.main([write(folder)]) == 0
    whole, text = rows(folder), (folder / "out" / "results.md").read_text()
    for seeds, name in (([0], "first.csv"), ([1], "second.csv")):
        assert sweep.main([write(folder, seeds=seeds), "--table-only"]) == 0
        (folder / "out" / "results.csv").rename(folder / name)
    shutil.rmtree(folder / "out")
    files = ["--results", "first.csv", "--results", "second.csv"]
    assert sweep.main([write(folder), *files, "--print-commands"]) == 0 and not records(folder)
    assert sweep.main([write(folder), *files]) == 0
    assert {name.split("-")[1] for name in records(folder)} == {"seed2"}
    timing = {"wall_seconds": ""}
    assert [row | timing for row in rows(folder)] == [row | timing for row in whole]
    assert (folder / "out" / "results.md").read_text() == text


def test_scores_are_not_lost_with_their_folders(folder, capsys):
    assert sweep.main([write(folder, seeds=[0, 1])]) == 0
    before = (folder / "out" / "results.csv").read_text()
    for path in folder.glob("out/*-seed1-*"):
        shutil.rmtree(path)
    capsys.readouterr()
    for options in ([], ["--table-only"]):
        assert sweep.main([write(folder, seeds=[0, 1]), *options]) == 2
        error = capsys.readouterr().err
        assert "has 2 finished runs whose folders are gone, such as 1.0_1-seed1-" in error
        assert "--results out/results.csv" in error and len(records(folder)) == 2
        assert (folder / "out" / "results.csv").read_text() == before
    kept = ["--table-only", "--results", "out/results.csv"]
    assert sweep.main([write(folder, seeds=[0, 1]), *kept]) == 0
    assert (folder / "out" / "results.csv").read_text() == before
    # Not those of another sweep that was in this folder; and without the file they are trained.
    assert sweep.main([write(folder, seeds=[0])]) == 0
    assert sweep.main([write(folder, seeds=[0, 1])]) == 0 and len(records(folder)) == 4


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text.replace("hash", "hush"), "the first line has no hash"),
        (lambda text: text.replace("bbox/AP", "bbox/AQ"), "the first line has no bbox/AP"),
        (lambda text: text.replace(",finished", ",1,finished"), "run 1 has other columns"),
        (lambda text: text[: text.rindex(",")], "run 2 has other columns"),
        (lambda text: text.replace("10.0", "ten"), "could not convert string to float: 'ten'"),
        (
            lambda text: "",
            "the first line has no bbox/AP, seconds_per_iteration, wall_seconds, status",
        ),
        (None, "No such file"),
    ],
)
def test_files_that_are_no_results(folder, capsys, change, words):
    assert sweep.main([write(folder, seeds=[0])]) == 0
    file = folder / "out" / "results.csv"
    text = file.read_text()
    shutil.rmtree(folder / "out")
    if change:
        (folder / "a.csv").write_text(change(text))
    capsys.readouterr()
    assert sweep.main([write(folder, seeds=[0, 1]), "--results", "a.csv"]) == 2
    error = capsys.readouterr().err
    assert words in error and "--results a.csv: expected a results.csv with bbox/AP" in error
    assert error.count("\n") == 1 and not records(folder) and not file.exists()


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"status": 0'])
def test_a_record_that_was_cut_off_is_that_of_a_half_finished_run(folder, text):
    assert sweep.main([write(folder, seeds=[0])]) == 0
    broken, whole = sorted(folder.glob("out/*/run.json"))
    broken.write_text(text)
    marks = [path.with_name("mark") for path in (broken, whole)]
    for mark in marks:
        mark.touch()
    assert sweep.main([write(folder, seeds=[0])]) == 0
    assert [mark.exists() for mark in marks] == [False, True] and len(records(folder)) == 2


def test_the_hash_is_that_of_the_settings(folder):
    def hashes(**changes):
        spec = sweep_plan.read_sweep(folder / write(folder, **changes), [])
        return [run.hash for run in sweep_plan.make_runs(spec)]

    first = hashes()
    assert len(set(first)) == 6
    assert hashes(output="elsewhere") == first
    assert hashes(seeds=[2, 1, 0]) == [first[i] for i in (2, 1, 0, 5, 4, 3)]
    # The config's own value, said once more; then another one.
    assert hashes(opts={"MODEL.RPN.NMS_THRESH": 0.7, "SOLVER.MAX_ITER": 1000}) == first
    assert not set(hashes(opts={"SOLVER.MAX_ITER": 999})) & set(first)


def test_exclude_and_include(folder):
    grid = {**content()["grid"], "nms": thresholds(low=0.3, high=0.6)}
    own = {"MODEL.LOSS_WEIGHTER.WEIGHTS": [0.25, 1.0]}
    path = write(
        folder, grid=grid, opts={}, seeds=[0], exclude=[{"weights": "1.0:1", "nms": "high"}],
        include=[{"weights": "quarter", "nms": "low", "opts": own}],
    )  # fmt: skip
    spec = sweep_plan.read_sweep(folder / path, [])
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


def test_settings_of_the_command_line_go_to_all_runs(folder):
    assert sweep.main([write(folder), "--jobs", "1", "SOLVER.MAX_ITER", "7", "--table-only"]) == 0
    spec = sweep_plan.read_sweep(folder / write(folder), ["SOLVER.MAX_ITER", "7"])
    assert all(cell.settings["SOLVER.MAX_ITER"] == "7" for cell in spec.cells)
    assert [row["status"] for row in rows(folder)] == ["missing"] * 6
    (folder / "stub.py").write_text(STUB + 'print("iterations", opts["SOLVER.MAX_ITER"])\n')
    assert sweep.main([write(folder, seeds=[0]), "SOLVER.MAX_ITER", "7"]) == 0
    printed = {path.read_text().splitlines()[-1] for path in folder.glob("out/*/output.txt")}
    assert printed == {"iterations 7"}


WEIGHTS = "MODEL.LOSS_WEIGHTER.WEIGHTS"


@pytest.mark.parametrize(
    "changes, opts, words",
    [
        ({"opts": {"MODEL.ALWA.INTERVALL": 5}}, [], "Non-existent key: MODEL.ALWA.INTERVALL"),
        ({"opts": {"MODEL.ALWA.INTERVAL": "often"}}, [], "MODEL.ALWA.INTERVAL"),
        ({"opts": {"DATASETS.REGISTER": [{"name": "x"}]}}, [], 'key "format"'),
        ({"opts": {"SEED": 1}}, [], "opts: SEED can't be set, `seeds` has them"),
        ({"opts": {"MODEL": {"ALWA": {}}}}, [], "opts.MODEL: expected a value"),
        ({"opts": [1]}, [], "opts: expected a mapping KEY: VALUE, got [1]"),
        ({"jobs": 2}, [], "the file: expected the keys config, output"),
        ({"config": "configs/none.yaml"}, [], "config: expected a file below"),
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
    assert sweep.main([write(folder, **changes), *opts]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert words in error and error.startswith("sweep: ") and ("a.yaml" in error or opts)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "text, words",
    [("a: [", "expected YAML"), ("seeds: [0]\nseeds: [1]", "'seeds' is there twice"), ("", "None")],
)
def test_files_that_are_no_sweeps(folder, capsys, text, words):
    (folder / "a.yaml").write_text(text)
    assert sweep.main(["a.yaml"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert sweep.main(["none.yaml"]) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_a_failure_is_recorded_and_the_rest_is_done(folder, capsys):
    grid = {**content()["grid"], "nms": thresholds(bad=0.1, good=0.7)}
    changes = dict(grid=grid, opts={}, seeds=[0, 1], exclude=[{"weights": "1.0:1", "nms": "bad"}])
    path = write(folder, **changes)
    assert sweep.main([path]) == 1
    assert [row["status"] for row in rows(folder)] == ["finished"] * 2 + ["failed"] * 2 + [
        "finished"
    ] * 2
    failed = [record for record in records(folder).values() if record["status"]]
    assert [record["error"][-1] for record in failed] == ["RuntimeError: this one fails"] * 2
    text = (folder / "out" / "results.md").read_text()
    assert "4 of 6 runs have finished." in text and "Failed runs: 2" in text
    assert (
        "- 0.5:1 bad seed 1 (" in text and "`exit status 1: RuntimeError: this one fails`" in text
    )
    log = capsys.readouterr().err
    assert "[4/6] 2 failed" in log and "started" in log and "\r" not in log
    # Left as it is, and tried again when that is asked for.
    (folder / "stub.py").write_text(STUB.replace('== "0.1"', '== "none"'))
    assert sweep.main([path]) == 1 and len(rows(folder)) == 6
    assert "[4/6] 2 failed" in capsys.readouterr().err
    assert sweep.main([path, "--retry-failed"]) == 0
    assert "[6/6] 0 failed" in capsys.readouterr().err
    assert {row["status"] for row in rows(folder)} == {"finished"}
    assert "Failed" not in (folder / "out" / "results.md").read_text()


def test_a_metric_that_is_not_there_is_a_failure_and_its_name_can_be_put_right(folder):
    assert sweep.main([write(folder, metrics=["bbox/AP51"], seeds=[0])]) == 1
    text = (folder / "out" / "results.md").read_text()
    assert "metrics.json has no bbox/AP51; it has bbox/AP" in text
    # Training again would not help.
    marks = [path.with_name("mark") for path in folder.glob("out/*/run.json")]
    for mark in marks:
        mark.touch()
    assert sweep.main([write(folder, metrics=["bbox/AP51"], seeds=[0]), "--retry-failed"]) == 1
    assert len(marks) == 2 and all(mark.exists() for mark in marks)
    assert sweep.main([write(folder, seeds=[0]), "--table-only"]) == 0
    assert {row["status"] for row in rows(folder)} == {"finished"}


def test_a_bar_where_someone_watches(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert sweep.main([write(folder, seeds=[0, 1])]) == 0
    shown = [text for text in capsys.readouterr().err.split("\r\x1b[K") if text.startswith("|")]
    assert all(text[21:24] == "| [" for text in shown) and "left" in shown[0]
    lengths = [text[1:21].count("=") for text in shown]
    assert lengths == sorted(lengths) and set(lengths) >= {0, 5, 10, 15}


def test_jobs_share_the_cores(folder, monkeypatch):
    monkeypatch.setattr(sweep.os, "sched_getaffinity", lambda process: set(range(7)))
    assert sweep.main([write(folder, seeds=[0]), "--jobs", "2"]) == 0
    printed = {path.read_text() for path in folder.glob("out/*/output.txt")}
    assert printed == {"threads 3\n"}


# ---- stopped sweeps

DRIVER = f"""
import sys
sys.path.insert(0, {str(REPO / "tools")!r})
import sweep, sweep_jobs
sweep_jobs.TRAIN_NET = [sys.executable, "stub.py"]
sys.exit(sweep.main(sys.argv[1:]))
"""


def begin(folder):
    """A sweep in a process of its own, when two of its runs have ended, two wait for a file, and two
    have not begun."""
    grid = {**content()["grid"], "nms": thresholds(quick=0.7, waits=0.2)}
    exclude = [{"weights": "0.5:1", "nms": "waits"}]
    path = write(folder, grid=grid, opts={}, seeds=[0, 1], exclude=exclude)
    command = [sys.executable, "-c", DRIVER, path, "--jobs", "2"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    waiting = "out/1.0_1-waits-seed[01]-*/begun"
    for _ in range(600):
        if process.poll() is not None or len(list(folder.glob(waiting))) == 2:
            break
        time.sleep(0.1)
    assert process.poll() is None, process.stderr.read()
    return process, path, list(folder.glob(waiting))


def children(process):
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path) as file:
        return [int(number) for number in file.read().split()]


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_ends_its_runs_and_goes_on(folder, number, monkeypatch):
    process, path, begun = begin(folder)
    pids = children(process)
    assert len(pids) == 2 and all(map(is_alive, pids))
    half = [file.parent.name for file in begun]
    # A second sweep would take the runs at work for half-finished ones.
    monkeypatch.setattr(sweep_jobs, "PATIENCE", 0)
    assert sweep.main([path]) == 2
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    for _ in range(100):
        if not any(map(is_alive, pids)):
            break
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    done = records(folder)
    assert len(half) == len(done) == 2 and not set(half) & set(done)
    marks = [folder / "out" / name / "mark" for name in (*half, *done)]
    for mark in marks:
        mark.touch()
    (folder / "go").touch()
    assert sweep.main([path]) == 0
    assert {row["status"] for row in rows(folder)} == {"finished"} and len(rows(folder)) == 6
    # The half-finished were begun anew, the finished left alone.
    assert [mark.exists() for mark in marks] == [False] * len(half) + [True] * len(done)


def test_printed_commands_do_the_missing_runs(folder, capsys):
    assert sweep.main([write(folder, seeds=[0])]) == 0
    capsys.readouterr()
    path = write(folder, seeds=[0, 1])
    assert sweep.main([path, "--print-commands", "SOLVER.MAX_ITER", "999"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4  # other settings, and so other runs
    # The config's own value.
    assert sweep.main([path, "--print-commands", "SOLVER.MAX_ITER", "1000"]) == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2 and len(records(folder)) == 2
    assert all(command.endswith(" SOLVER.MAX_ITER 1000") for command in commands)
    # The stub in place of train_net.py, which the command does not know.
    command = commands[0].replace(str(REPO / "tools" / "sweep.py"), str(folder / "driver.py"))
    (folder / "driver.py").write_text(DRIVER)
    done = subprocess.run(command, shell=True, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(records(folder)) == 3
    assert {row["seed"] for row in rows(folder)} == {"0"}  # the table is not its business
    assert sweep.main([path, "--print-commands", "SOLVER.MAX_ITER", "1000"]) == 0
    assert capsys.readouterr().out.splitlines() == commands[1:]
    assert sweep.main([path, "--run", "0123"]) == 2


def test_single_runs_may_be_at_work_together_but_not_the_same_one(folder, capsys, monkeypatch):
    monkeypatch.setattr(sweep_jobs, "PATIENCE", 0)
    path = write(folder, seeds=[0])
    one, other = sweep_plan.make_runs(sweep_plan.read_sweep(folder / path, []))
    with sweep_jobs.locked(folder / "out", one.hash):
        assert sweep.main([path, "--run", one.hash]) == 2
        assert f"the run {one.hash}, is at work" in capsys.readouterr().err
        assert sweep.main([path]) == 2 and not records(folder)
        assert sweep.main([path, "--run", other.hash]) == 0
    assert sweep.main([path, "--run", one.hash]) == 0 and len(records(folder)) == 2


# ---- the real thing


@pytest.mark.slow
def test_two_cells_and_two_seeds_of_train_net(voc_root, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    sets = [
        {"name": f"sweep_{split}", "format": "voc", "root": str(voc_root), "split": split}
        for split in ("train", "test")
    ]
    opts = {
        "DATASETS.REGISTER": sets, "DATASETS.TRAIN": "('sweep_train',)",
        "DATASETS.TEST": "('sweep_test',)", "MODEL.RETINANET.NUM_CLASSES": 2,
        "MODEL.ALWA.INTERVAL": INTERVAL, "INPUT.MIN_SIZE_TRAIN": "(64,)",
        "INPUT.MIN_SIZE_TEST": 64, "SOLVER.IMS_PER_BATCH": 2, "SOLVER.MAX_ITER": 5,
        "SOLVER.STEPS": "()",
    }  # fmt: skip
    names = {"weighting": {n: {"MODEL.LOSS_WEIGHTER.NAME": n} for n in ("Fixed", "ALWA")}}
    changes = dict(opts=opts, grid=names, seeds=[0, 1], baseline={"weighting": "Fixed"})
    changes["metrics"] = ["bbox/AP", "bbox/AP50"]
    assert sweep.main([write(tmp_path, **changes), "--jobs", "2"]) == 0
    found = rows(tmp_path)
    assert [(row["weighting"], row["seed"], row["status"]) for row in found] == [
        (name, seed, "finished") for name in ("Fixed", "ALWA") for seed in ("0", "1")
    ]
    for row in found:
        run = tmp_path / "out" / row["folder"]
        lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
        assert float(row["bbox/AP50"]) == lines[-1]["bbox/AP50"]
        assert float(row["alwa/weight_cls"]) == lines[-2]["alwa/weight_cls"]
        assert yaml.safe_load((run / "config.yaml").read_text())["SEED"] == int(row["seed"])
        assert (run / "model_final.pth").exists()
    assert [float(row["alwa/weight_cls"]) == 1 for row in found[:2]] == [True, True]
    assert table(tmp_path)[1]["ALWA"][0] == "2"
    check_the_other_tools([tmp_path / "out" / row["folder"] for row in found], tmp_path, found)


def check_the_other_tools(folders, tmp_path, found):
    """They read what train_net.py writes today, not only what tests write by hand."""
    names = [str(folder) for folder in folders]
    for name in ("weight_course", "sheet", "equal_recall"):
        load(name)
    plot_losses, diagnose = load("plot_losses"), load("diagnose")
    for kind in ([], ["--scales"], ["--grid"]):
        assert plot_losses.main([*names, *kind]) == 0
    assert {path.name for path in folders[0].glob("*.png")} == {
        "losses.png",
        "scales.png",
        "grid.png",
    }
    assert diagnose.main([*names, "--json", str(tmp_path / "a.json")]) == 0
    results = json.loads((tmp_path / "a.json").read_text())
    fixed, alwa = results[0], results[2]
    gain = float(found[2]["bbox/AP"]) - float(found[0]["bbox/AP"])
    assert (fixed["weights"], alwa["gain"]) == ("Fixed 1:1", {"AP": gain, "over": "1:1"})
    lines = (folders[2] / "metrics.json").read_text().splitlines()
    last = json.loads(lines[-2])
    assert alwa["falls_faster"]["cls"]["last_tenth"] == last["unweighted/loss_cls"]
    opts = ["--num-images", "1", "MODEL.DEVICE", "cpu"]
    assert load("show_detections").main(["--compare", names[0], names[2], *opts]) == 0
    assert (folders[0] / "comparison.png").exists()


def test_the_example_of_the_docs(tmp_path):
    text = (REPO / "docs" / "experiments.md").read_text().split("```yaml\n")[1].split("```")[0]
    (tmp_path / "a.yaml").write_text(text)
    spec = sweep_plan.read_sweep(tmp_path / "a.yaml", [])
    names = ["giou 1:1", "giou ALWA", "ciou 1:1", "giou 0.5:1"]
    assert [cell.name for cell in spec.cells] == names
    assert len(sweep_plan.make_runs(spec)) == 12


@pytest.fixture
def registered(path, request):
    """The opts with which a sweep of ours finds its data sets here; forgotten again after the test."""
    entries = yaml.safe_load(path.read_text())["opts"].get("DATASETS.REGISTER", [])
    # The embedded set may not be drawn yet: any folder in VOC layout will do, no image is read.
    root = request.getfixturevalue("bccd" if path.stem == "bccd" else "voc_root")
    entries = [{**entry, "root": str(root)} for entry in entries]
    yield ["DATASETS.REGISTER", repr(entries)] if entries else []
    for entry in entries:
        DatasetCatalog.pop(entry["name"], None)
        MetadataCatalog.pop(entry["name"], None)


def test_our_own_sweeps_share_runs():
    names = ("table2", "table1", "freezing", "two_stage", "focal_gamma", "long")
    specs = {name: sweep_plan.read_sweep(REPO / f"sweeps/{name}.yaml", []) for name in names}
    runs = {name: {run.hash for run in sweep_plan.make_runs(s)} for name, s in specs.items()}
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
    spec = sweep_plan.read_sweep(path, registered)
    assert spec.seeds == ([0] if path.stem == "bccd" else [0, 1, 2])
    assert all(map(spec.baseline_of, spec.cells))
    runs = sweep_plan.make_runs(spec)
    # The number that the file names.
    assert f": {len(runs)} runs." in path.read_text().split("config:")[0]
    assert os.path.relpath(spec.output) == os.path.join("output", "sweeps", path.stem)
