"""The runs of a sweep: which are done, what is left after a failure, and the real thing."""

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from sweep_stub import (  # noqa: F401 (a fixture)
    STUB,
    content,
    records,
    rows,
    stubbed_folder,
    sweep,
    table,
    thresholds,
    write,
)
from tiny_voc import make_voc_root, tiny_settings  # noqa: F401 (a fixture)

from alwa_d2.cli.main import main
from alwa_d2.sweep.progress import Progress
from alwa_d2.sweep.read import read_sweep
from alwa_d2.sweep.record import FAILED, FINISHED, Result

# ---- what is run


def test_finished_runs_are_not_repeated_and_labels_do_not_matter(folder):
    assert sweep(write(folder, seeds=[0])) == 0
    before = {
        name: (folder / "out" / name / "begun").stat().st_mtime_ns for name in records(folder)
    }
    assert len(before) == 2
    grid = content()["grid"]["weights"]
    renamed = {"one": grid["1.0:1"], "half": grid["0.5:1"]}
    path = write(folder, grid={"w": renamed}, baseline={"w": "half"}, seeds=[0, 1])
    assert sweep(path) == 0
    after = {name: (folder / "out" / name / "begun").stat().st_mtime_ns for name in records(folder)}
    assert len(after) == 4 and after.items() >= before.items()
    assert [row["status"] for row in rows(folder)] == ["finished"] * 4
    assert [row["w"] for row in rows(folder)] == ["one", "one", "half", "half"]


def test_finished_runs_of_another_sweep_are_reused_and_left_alone(folder):
    assert sweep(write(folder, seeds=[0, 1], output="other")) == 0
    folders = sorted(folder.glob("other/*/run.json"))
    assert len(folders) == 4
    failed = json.loads(folders[0].read_text()) | {"status": 1}
    folders[0].write_text(json.dumps(failed))
    folders[1].unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("other/*/*")}
    grid = {"w": content()["grid"]["weights"]}
    changes = {"grid": grid, "baseline": {}, "seeds": [0, 1, 2], "reuse": ["other", "not_there"]}
    assert sweep(write(folder, **changes)) == 0
    assert [row["status"] for row in rows(folder)] == ["finished"] * 6
    # Trained here: the third seed of both, and what has not finished there.
    assert len(records(folder)) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.glob("other/*/*")} == times
    assert [row["folder"].startswith("../other/") for row in rows(folder)].count(True) == 2


def test_a_reused_run_without_the_metric_is_not_trained_again(folder, capsys):
    assert sweep(write(folder, seeds=[0], output="other")) == 0
    path = write(folder, seeds=[0], reuse=["other"], metrics=["bbox/APs"])
    assert sweep(path, "--retry-failed") == 1
    assert not records(folder) and len(list(folder.glob("other/*/begun"))) == 2
    text = (folder / "out" / "results.md").read_text()
    assert "Runs without the metric: 2" in text and "(`other/" in text
    # Its file damaged, it is a failed run, and still not ours.
    for file in folder.glob("other/*/metrics.json"):
        file.write_text("")
    assert sweep(path, "--retry-failed") == 1
    assert not records(folder) and "Failed runs: 2" in (folder / "out" / "results.md").read_text()


def test_a_reused_run_goes_before_a_failed_one_of_our_own(folder):
    assert sweep(write(folder, seeds=[0])) == 0
    assert sweep(write(folder, seeds=[0], output="other")) == 0
    for file in folder.glob("out/*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"status": 1, "error": []}))
    assert sweep(write(folder, seeds=[0], reuse=["other"])) == 0
    assert [row["folder"].startswith("../other/") for row in rows(folder)] == [True, True]


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"status": 0'])
def test_a_record_that_was_cut_off_is_that_of_a_half_finished_run(folder, text):
    assert sweep(write(folder, seeds=[0])) == 0
    broken, whole = sorted(folder.glob("out/*/run.json"))
    broken.write_text(text)
    marks = [path.with_name("mark") for path in (broken, whole)]
    for mark in marks:
        mark.touch()
    assert sweep(write(folder, seeds=[0])) == 0
    assert [mark.exists() for mark in marks] == [False, True] and len(records(folder)) == 2


def test_settings_of_the_command_line_go_to_all_runs(folder):
    assert sweep(write(folder), "--jobs", "1", "SOLVER.MAX_ITER", "7", "--table-only") == 0
    spec = read_sweep(folder / write(folder), ["SOLVER.MAX_ITER", "7"])
    assert all(cell.settings["SOLVER.MAX_ITER"] == "7" for cell in spec.cells)
    assert [row["status"] for row in rows(folder)] == ["missing"] * 6
    (folder / "stub.py").write_text(STUB + 'print("iterations", opts["SOLVER.MAX_ITER"])\n')
    assert sweep(write(folder, seeds=[0]), "SOLVER.MAX_ITER", "7") == 0
    printed = {path.read_text().splitlines()[-1] for path in folder.glob("out/*/output.txt")}
    assert printed == {"iterations 7"}


def test_a_failure_is_recorded_and_the_rest_is_done(folder, capsys):
    grid = {**content()["grid"], "nms": thresholds(bad=0.1, good=0.7)}
    changes = dict(grid=grid, opts={}, seeds=[0, 1], exclude=[{"weights": "1.0:1", "nms": "bad"}])
    path = write(folder, **changes)
    assert sweep(path) == 1
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
    assert sweep(path) == 1 and len(rows(folder)) == 6
    assert "[4/6] 2 failed" in capsys.readouterr().err
    assert sweep(path, "--retry-failed") == 0
    assert "[6/6] 0 failed" in capsys.readouterr().err
    assert {row["status"] for row in rows(folder)} == {"finished"}
    assert "Failed" not in (folder / "out" / "results.md").read_text()


def test_a_run_whose_folder_vanishes_has_failed_and_the_rest_is_done(folder):
    """With the run's own last act, as where somebody clears the sweep's folder by hand."""
    vanishes = "if seed == 1 and weight < 1:\n    import shutil; shutil.rmtree(folder)\n"
    (folder / "stub.py").write_text(STUB + vanishes)
    path = write(folder)
    assert sweep(path) == 1
    assert [row["status"] for row in rows(folder)].count("finished") == 5
    text = (folder / "out" / "results.md").read_text()
    assert "0.5:1 seed 1 (" in text and "`its folder is gone`" in text
    (folder / "stub.py").write_text(STUB)
    assert sweep(path) == 0 and len(records(folder)) == 6


def test_a_full_disk_ends_the_sweep_in_the_middle_of_its_work(folder, monkeypatch, capsys):
    write_text = Path.write_text

    def full(self, text, **kwargs):
        if self.name.startswith(".run.json") and records(folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(self, text, **kwargs)

    path = write(folder)
    monkeypatch.setattr(Path, "write_text", full)
    assert sweep(path) == 1
    error = capsys.readouterr().err
    assert "alwa-d2 sweep: out/" in error and "run.json: No space left on device" in error


def test_a_reused_run_that_is_damaged_is_trained_in_the_sweeps_own_folder(folder):
    assert sweep(write(folder, output="other", seeds=[0])) == 0
    for path in folder.glob("other/1.0_1-*/metrics.json"):
        path.unlink()
    assert sweep(write(folder, seeds=[0], reuse=["other"])) == 0
    assert len(records(folder)) == 1 and {row["status"] for row in rows(folder)} == {"finished"}


def test_a_metric_that_is_not_there_is_a_failure_and_its_name_can_be_put_right(folder):
    assert sweep(write(folder, metrics=["bbox/AP51"], seeds=[0])) == 1
    text = (folder / "out" / "results.md").read_text()
    assert "metrics.json has no bbox/AP51; it has bbox/AP" in text
    # Training again would not help.
    marks = [path.with_name("mark") for path in folder.glob("out/*/run.json")]
    for mark in marks:
        mark.touch()
    assert sweep(write(folder, metrics=["bbox/AP51"], seeds=[0]), "--retry-failed") == 1
    assert len(marks) == 2 and all(mark.exists() for mark in marks)
    assert sweep(write(folder, seeds=[0]), "--table-only") == 0
    assert {row["status"] for row in rows(folder)} == {"finished"}


def test_a_bar_where_someone_watches(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert sweep(write(folder, seeds=[0, 1])) == 0
    shown = [text for text in capsys.readouterr().err.split("\r") if "left; now: " in text]
    assert all(text[0] + text[21:24] == "|| [" for text in shown)
    lengths = [text[1:21].count("=") for text in shown]
    assert lengths == sorted(lengths) and set(lengths) >= {0, 5, 10, 15}


def test_a_line_for_each_event_where_nobody_watches(folder, capsys):
    assert sweep(write(folder, seeds=[0])) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("] ")[0] for line in lines] == ["[0/2", "[1/2", "[1/2", "[2/2", "[2/2"]
    events = [line.split("; ")[1].split()[0] for line in lines]
    assert events == ["started", "finished", "started", "finished", "done"]
    assert all("0 failed, 0:00:0" in line for line in lines)


def test_the_time_left_is_by_the_runs_that_have_finished():
    run = SimpleNamespace(name="a")
    results = [Result(run, FINISHED, seconds=s) for s in (10.0, 30.0)] + [Result(run)] * 4
    progress = Progress(results, [2, 3, 4, 5], jobs=2)
    # Four runs of 20 s, less 5 s and all of a run that takes longer than the mean, two at a time.
    running = [SimpleNamespace(run=run, seconds=s) for s in (5.0, 99.0)]
    assert progress.left(running) == "0:00:28"  # 27.5
    progress.add(Result(run, FAILED, seconds=900.0))
    assert progress.left([]) == "0:00:30" and "[2/6] 1 failed" in progress.line([])
    assert Progress([Result(run)], [0], jobs=1).left([]) == "?"


def test_jobs_share_the_cores(folder, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(7)))
    assert sweep(write(folder, seeds=[0]), "--jobs", "2") == 0
    printed = {path.read_text() for path in folder.glob("out/*/output.txt")}
    assert printed == {"threads 3\n"}


# ---- the real thing


@pytest.mark.slow
def test_two_cells_and_two_seeds_of_real_trainings(voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPO))  # this package, whatever is installed
    opts = {**tiny_settings(voc_root, "sweep"), "SOLVER.MAX_ITER": 5}
    names = {"weighting": {n: {"MODEL.LOSS_WEIGHTER.NAME": n} for n in ("Fixed", "ALWA")}}
    changes = dict(opts=opts, grid=names, seeds=[0, 1], baseline={"weighting": "Fixed"})
    changes["metrics"] = ["bbox/AP", "bbox/AP50"]
    assert sweep(write(tmp_path, **changes), "--jobs", "2") == 0
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
    check_the_other_commands([tmp_path / "out" / row["folder"] for row in found], tmp_path, found)


def check_the_other_commands(folders, tmp_path, found):
    """They read what a training writes today, not only what tests write by hand."""
    names = [str(folder) for folder in folders]
    for kind in ([], ["--scales"], ["--grid"]):
        assert main(["plot", *names, *kind]) == 0
    assert {path.name for path in folders[0].glob("*.png")} == {
        *("losses.png", "scales.png", "grid.png")
    }
    assert main(["diagnose", *names, "--json", str(tmp_path / "a.json")]) == 0
    results = json.loads((tmp_path / "a.json").read_text())
    fixed, alwa = results[0], results[2]
    gain = float(found[2]["bbox/AP"]) - float(found[0]["bbox/AP"])
    assert (fixed["weights"], alwa["gain"]) == ("Fixed 1:1", {"AP": gain, "over": "1:1"})
    lines = (folders[2] / "metrics.json").read_text().splitlines()
    last = json.loads(lines[-2])
    assert alwa["falls_faster"]["cls"]["last_tenth"] == last["unweighted/loss_cls"]
    pictures = ["--detections", "--num-images", "1", "--opts", "MODEL.DEVICE", "cpu"]
    assert main(["compare", names[0], names[2], *pictures]) == 0
    assert (folders[0] / "comparison.png").exists()
