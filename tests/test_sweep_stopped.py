"""Sweeps that are stopped or killed, two in one folder, and single runs by printed commands."""

import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from linux_processes import children, is_alive
from sweep_stub import (  # noqa: F401 (a fixture)
    DRIVER,
    ENVIRONMENT,
    content,
    records,
    rows,
    stubbed_folder,
    sweep,
    table,
    thresholds,
    write,
)

from alwa_d2.sweep import lock
from alwa_d2.sweep.lock import locked
from alwa_d2.sweep.plan import make_runs
from alwa_d2.sweep.read import read_sweep


def begin(folder):
    """A sweep in a process of its own, when two of its runs have ended, two wait for a file, and two
    have not begun."""
    grid = {**content()["grid"], "nms": thresholds(quick=0.7, waits=0.2)}
    exclude = [{"weights": "0.5:1", "nms": "waits"}]
    path = write(folder, grid=grid, opts={}, seeds=[0, 1], exclude=exclude)
    command = [sys.executable, "-c", DRIVER, path, "--jobs", "2"]
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    waiting = "out/1.0_1-waits-seed[01]-*/begun"
    for _ in range(600):
        if process.poll() is not None or len(list(folder.glob(waiting))) == 2:
            break
        time.sleep(0.1)
    assert process.poll() is None, process.stderr.read()
    return process, path, list(folder.glob(waiting))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_ends_its_runs_and_goes_on(folder, number, monkeypatch):
    process, path, begun = begin(folder)
    pids = children(process.pid)
    assert len(pids) == 2 and all(map(is_alive, pids))
    half = [file.parent.name for file in begun]
    # A second sweep would take the runs at work for half-finished ones.
    monkeypatch.setattr(lock, "PATIENCE", 0)
    assert sweep(path) == 2
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
    assert sweep(path) == 0
    assert {row["status"] for row in rows(folder)} == {"finished"} and len(rows(folder)) == 6
    # The half-finished were begun anew, the finished left alone.
    assert [mark.exists() for mark in marks] == [False] * len(half) + [True] * len(done)


def test_printed_commands_do_the_missing_runs(folder, capsys):
    assert sweep(write(folder, seeds=[0])) == 0
    capsys.readouterr()
    path = write(folder, seeds=[0, 1])
    assert sweep(path, "--print-commands", "SOLVER.MAX_ITER", "999") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4  # other settings, and so other runs
    # The config's own value.
    assert sweep(path, "--print-commands", "SOLVER.MAX_ITER", "1000") == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2 and len(records(folder)) == 2
    assert all(" SOLVER.MAX_ITER 1000 --run " in command for command in commands)
    # The stub in place of the training, which the command does not know.
    assert " -m alwa_d2 sweep " in commands[0]
    command = commands[0].replace("-m alwa_d2 sweep", str(folder / "driver.py"))
    (folder / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        command, shell=True, cwd="/", env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(records(folder)) == 3
    assert {row["seed"] for row in rows(folder)} == {"0"}  # the table is not its business
    assert sweep(path, "--print-commands", "SOLVER.MAX_ITER", "1000") == 0
    assert capsys.readouterr().out.splitlines() == commands[1:]
    assert sweep(path, "--run", "0123") == 2


def test_single_runs_may_be_at_work_together_but_not_the_same_one(folder, capsys, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0)
    path = write(folder, seeds=[0])
    one, other = make_runs(read_sweep(folder / path, []))
    with locked(folder / "out", one.hash):
        assert sweep(path, "--run", one.hash) == 2
        assert f"the run {one.hash}, is at work" in capsys.readouterr().err
        assert sweep(path) == 2 and not records(folder)
        assert sweep(path, "--run", other.hash) == 0
    assert sweep(path, "--run", one.hash) == 0 and len(records(folder)) == 2
