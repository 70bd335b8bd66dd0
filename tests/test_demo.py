"""alwa-d2 demo, with stubs in place of the commands that it runs."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from conftest import REPO
from linux_processes import children, is_alive
from run_folders import records, write_run

from alwa_d2.analysis.runs import load_run
from alwa_d2.cli import demo
from alwa_d2.cli.main import main
from alwa_d2.errors import UserError

pytest.importorskip("detectron2", reason="needs Detectron2")


def test_a_demo_that_is_refused_leaves_the_earlier_run(tmp_path, capfd):
    folder = write_run(tmp_path / "demo")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["demo", "--output", str(folder), "SOLVER.MAX_ITERR", "5"]) == 1
    assert "SOLVER.MAX_ITERR" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_demo_refuses_a_folder_of_other_things(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"alwa-d2 demo: --output: {tmp_path} holds other things")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert main(["demo", "--output", str(tmp_path / "thesis.txt")]) == 2
    assert "expected a folder, got the file" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text("url: http://example.org")
    assert main(["demo", "--output", str(tmp_path)]) == 2
    assert (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config-file", "none.yaml"], "--config-file: expected the path or name of a config"),
        (["OUTPUT_DIR", "a"], "by --output"),
    ],
)
def test_demo_refuses_before_it_removes_anything(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.subprocess, "run", lambda command: SimpleNamespace(returncode=3))
    folder = write_run(tmp_path / "demo")
    try:
        status = main(["demo", "--output", str(folder), *arguments])
    except SystemExit as stop:  # of an argument that cannot be read
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert (folder / "metrics.json").exists()


def test_demo_stops_at_the_first_step_that_fails(tmp_path, monkeypatch, capsys):
    commands = []

    def run(command):
        commands.append(command)
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(demo.subprocess, "run", run)
    assert main(["demo", "--output", str(tmp_path / "demo"), "SOLVER.MAX_ITER", "5"]) == 1
    assert "train ended with exit status 3" in capsys.readouterr().err
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "alwa_d2", "train"]
    assert command[4:6] == ["--config-file", str(REPO / "configs" / "retina_alwa.yaml")]
    assert command[6:8] == ["SOLVER.MAX_ITER", "5"]
    assert command[8:] == ["OUTPUT_DIR", str(tmp_path / "demo"), "OVERWRITE", "True"]


def test_demo_prints_results_and_their_places_last(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    commands = []

    def run(command):  # leaves what the commands would
        commands.append(command[3])
        if commands[-1] == "train":
            write_run(folder)
            for name in ("model_final.pth", "events.out.tfevents.1.host"):
                (folder / name).touch()
        for name in ("losses.png", "detections.png"):
            (folder / name).touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(demo.subprocess, "run", run)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--output", "demo"]) == 0
    assert commands == ["train", "plot", "show"]
    title, _, *table = capsys.readouterr().out.split("Results of ")[1].splitlines()
    assert title == "retina_alwa.yaml"
    rows = dict(line.strip().split("  ", 1) for line in table if line)
    assert {name: value.strip() for name, value in rows.items()} == {
        "AP": "40.2",
        "AP50": "71.5",
        "AP75": "39.0",
        "final weight of loss_cls": "0.500",
        "final weight of loss_box_reg": "1.000",
        "training and evaluation": "0 s",
        "iterations": "200",
        "checkpoint": "demo/model_final.pth",
        "metrics": "demo/metrics.json",
        "TensorBoard": "demo/events.out.tfevents.1.host",
        "curves": "demo/losses.png",
        "detections": "demo/detections.png",
    }


def test_demo_says_what_is_missing(tmp_path):
    folder = write_run(tmp_path / "demo", records()[:-1])
    with pytest.raises(UserError, match="no model_final.pth, events"):
        demo.find_places(folder)
    with pytest.raises(UserError, match="no line has bbox/AP"):
        demo.format_table(load_run(folder), 1.0, {})


SLEEPS = """
import subprocess, sys
from alwa_d2.cli import demo, main
sleep = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)"
demo.run_demo = lambda *given: subprocess.run([sys.executable, "-c", sleep])
sys.exit(main.main(["demo"]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_signal_to_the_demo_alone_ends_its_step_too(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    run = subprocess.Popen([sys.executable, "-c", SLEEPS], cwd=tmp_path, env=env)
    try:
        for _ in range(1200):
            if run.poll() is not None or (tmp_path / "begun").exists():
                break
            time.sleep(0.1)
        (step,) = children(run.pid)
        run.send_signal(signal.SIGTERM)
        assert run.wait(30) == 128 + signal.SIGTERM
        assert not is_alive(step)
    finally:
        run.kill()
