"""Runs as jobs of Slurm: with submitit's own executors, and with commands that act as Slurm's do."""

import json
import os
import signal
import subprocess
import sys
import time

import fake_slurm
import pytest
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")
pytest.importorskip("submitit", reason="needs submitit")

import submitit
from sweep_stub import (  # noqa: F401 (a fixture)
    DRIVER,
    records,
    rows,
    stubbed_folder,
    sweep,
    write,
)

from alwa_d2.errors import UserError
from alwa_d2.sweep import slurm
from alwa_d2.sweep.local import train_command
from alwa_d2.sweep.plan import make_runs
from alwa_d2.sweep.read import read_sweep
from alwa_d2.sweep.record import FAILED, FINISHED, MISSING, read_result

ON_SLURM = ("--cluster", "slurm", "--slurm", "time=5")


@pytest.fixture
def cluster(folder, monkeypatch):
    """The folder of the fake cluster's jobs; its commands are on the PATH."""
    for name, value in fake_slurm.install(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setattr(slurm.Slurm, "poll", 0.05)
    monkeypatch.setattr(slurm, "SETTLE", 0)
    # The state of a job is asked for at most every two seconds, and not of another test's job.
    submitit.SlurmJob.watcher.clear()
    submitit.SlurmJob.watcher._registered.clear()
    return folder / "jobs"


def wait_for(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def plan(folder, **changes):
    spec = read_sweep(folder / write(folder, seeds=[0], **changes), [])
    return spec, make_runs(spec)


def submitted(cluster):
    return sorted(path.stem for path in cluster.glob("*.sh"))


# ---- as a user calls it


@pytest.mark.slow
def test_all_runs_are_done_and_tabulated(folder, cluster, capsys):
    asked = [*ON_SLURM, "partition=gpu", "cpus_per_task=2", "exclusive=true"]
    assert sweep(write(folder, seeds=[0]), *asked) == 0
    assert [row["status"] for row in rows(folder)] == ["finished"] * 2
    assert [float(row["wall_seconds"]) > 0 for row in rows(folder)] == [True] * 2
    assert submitted(cluster) == ["100", "101"]
    assert [slurm.job_id(run.folder) for run in plan(folder)[1]] == ["100", "101"]
    script = (cluster / "100.sh").read_text()
    for line in ("time=5", "partition=gpu", "cpus-per-task=2", "job-name=1.0_1-seed0-"):
        assert f"#SBATCH --{line}" in script
    assert "#SBATCH --exclusive\n" in script
    assert " --cpus-per-task=2 " in script.splitlines()[-1]
    log = capsys.readouterr().err
    assert "submitted job 100: out/1.0_1-seed0-" in log and "[2/2] 0 failed" in log
    # The threads are those of the job, whatever else runs.
    threads = f"threads {len(os.sched_getaffinity(0))}\n"
    assert {path.read_text() for path in folder.glob("out/*/output.txt")} == {threads}
    assert sweep(write(folder, seeds=[0]), *asked) == 0 and len(submitted(cluster)) == 2


@pytest.mark.slow
def test_a_failed_run_is_recorded_by_its_job(folder, cluster):
    path = write(folder, seeds=[0], opts={"MODEL.RPN.NMS_THRESH": 0.1})
    assert sweep(path, *ON_SLURM, "--jobs", "1") == 1
    assert {record["status"] for record in records(folder).values()} == {1}
    assert "RuntimeError: this one fails" in (folder / "out" / "results.md").read_text()
    assert sweep(path, *ON_SLURM) == 1 and len(submitted(cluster)) == 2
    # Tried again, here or there; afterwards it is no job's any more.
    (folder / "stub.py").write_text((folder / "stub.py").read_text().replace('"0.1"', '"none"'))
    assert sweep(path, "--retry-failed") == 0 and len(submitted(cluster)) == 2
    assert not list(folder.glob("out/*/slurm"))


def begin(folder):
    """A sweep in a process of its own that has submitted its two runs, which are queued."""
    (folder / "jobs" / "hold").touch()
    path = write(folder, seeds=[0])
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, path, *ON_SLURM],
        cwd=folder, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(list(folder.glob("out/*/slurm/*_submitted.pkl"))) == 2)
    return process, path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_sweep_finds_its_jobs_again(folder, cluster, number, capsys):
    process, path = begin(folder)
    process.send_signal(number)
    log = process.communicate(timeout=30)[1]
    if number == signal.SIGTERM:
        assert "2 jobs left to Slurm" in log and "(scancel 100 101 ends them)" in log
        assert process.returncode == 128 + number
    # Nothing else may train them meanwhile.
    capsys.readouterr()
    assert sweep(path) == 2 and "was given to Slurm as job 10" in capsys.readouterr().err
    (run, _) = plan(folder)[1]
    assert sweep(path, "--run", run.hash) == 2
    (cluster / "hold").unlink()
    assert sweep(path, *ON_SLURM) == 0
    assert capsys.readouterr().err.count("still at work: ") == 2
    assert submitted(cluster) == ["100", "101"]
    assert [row["status"] for row in rows(folder)] == ["finished"] * 2


@pytest.mark.slow
def test_jobs_that_ended_behind_the_sweeps_back_are_submitted_anew(folder, cluster):
    process, path = begin(folder)
    process.kill()
    process.communicate(timeout=30)
    subprocess.run(["scancel", "100", "101"], check=True)
    (cluster / "hold").unlink()
    assert sweep(path, *ON_SLURM) == 0
    assert submitted(cluster) == ["100", "101", "102", "103"]
    assert len(records(folder)) == 2


@pytest.mark.parametrize(
    "options, words",
    [
        ([], "--slurm: expected time=MINUTES, the most that a run may take, got none"),
        (["--slurm", "time=1:00"], "--slurm: expected time=MINUTES, the most that a run may take"),
        (["--slurm", "time=5", "SOLVER.MAX_ITER"], "--slurm: expected KEY=VALUE, got SOLVER.MAX"),
        (["--slurm", "time=5", "nodes=2"], "--slurm: nodes can't be set, a run is one task"),
        (["--slurm", "time=5", "colour=red"], "Unavailable parameter(s): ['colour']"),
    ],
)
def test_refused_before_anything_was_submitted(folder, cluster, capsys, options, words):
    assert sweep(write(folder), "--cluster", "slurm", *options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and not (folder / "out").exists()


def test_what_slurm_refuses_ends_the_sweep(folder, cluster, capsys):
    assert sweep(write(folder), *ON_SLURM, "partition=nowhere") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "was not taken" in error and "invalid partition specified: nowhere" in error
    assert not records(folder) and not submitted(cluster)


def test_what_is_not_there(folder, capsys, monkeypatch):
    assert sweep(write(folder), "--slurm", "time=5") == 2
    assert "--slurm: expected --cluster slurm with it, got local" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert sweep(write(folder), *ON_SLURM) == 2
    assert 'Could not detect "srun"' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert sweep(write(folder), *ON_SLURM) == 2
    assert "pip install submitit" in capsys.readouterr().err


# ---- a job


@pytest.mark.slow
def test_a_job_that_slurm_ends_is_a_failed_run(folder, cluster):
    spec, (run, _) = plan(folder, opts={"MODEL.RPN.NMS_THRESH": 0.2})
    machine = slurm.Slurm(spec, None, {"time": 5})
    job, text = machine.start(run)
    assert text == f"submitted job 100: {run.folder}" and job.seconds == 0
    wait_for((run.folder / "begun").exists)
    assert not job.has_ended() and job.seconds >= 0 and read_result(run, []).status == MISSING
    found = machine.find(run)
    assert found.job.job_id == "100" and not found.has_ended()
    fake_slurm.set_state(cluster, "100", "TIMEOUT")
    wait_for(job.has_ended)
    result = read_result(run, [])
    assert result.status == FAILED
    assert result.error.startswith("job 100 ended as TIMEOUT before its run did; see out/")
    (folder / "go").touch()


def test_a_record_has_its_time_to_show(folder, cluster, monkeypatch):
    """On a disk of several machines Slurm's word may come first."""
    spec, (run, _) = plan(folder)
    (cluster / "hold").touch()
    job, _ = slurm.Slurm(spec, None, {"time": 5}).start(run)
    monkeypatch.setattr(slurm, "SETTLE", 60)
    monkeypatch.setattr(type(job.job), "done", lambda self: True)
    assert not job.has_ended()
    slurm.write_record(run, 1.0, 1, ["late"])
    assert job.has_ended() and "late" in read_result(run, []).error
    (cluster / "hold").unlink()


def test_a_job_begins_its_run_anew_and_a_finished_one_not_at_all(folder):
    spec, (run, _) = plan(folder)
    (run.folder / "inference").mkdir(parents=True)
    (run.folder / "slurm").mkdir()
    for name in ("metrics.json", "inference/old", "slurm/1_submitted.pkl"):
        (run.folder / name).write_text("of an earlier attempt")
    slurm.train(run, train_command(spec, run))
    assert read_result(run, spec.metrics).status == FINISHED
    assert (run.folder / "slurm" / "1_submitted.pkl").exists()
    assert not (run.folder / "inference").exists()
    before = (run.folder / "begun").stat().st_mtime_ns
    slurm.train(run, train_command(spec, run))  # requeued
    assert (run.folder / "begun").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGUSR2"])
def test_a_training_that_slurm_ends_has_no_record(folder, name):
    """A job that is preempted may be requeued: until then its run has not failed."""
    _, (run, _) = plan(folder)
    run.folder.mkdir(parents=True)
    kill = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    with pytest.raises(SystemExit):
        slurm.train(run, [sys.executable, "-c", kill])
    with pytest.raises(SystemExit):
        slurm.train(run, [sys.executable, "-c", "raise SystemExit(143)"])
    assert read_result(run, []).status == MISSING
    slurm.train(run, [sys.executable, "-c", "raise SystemExit(3)"])
    assert read_result(run, []).error.startswith("exit status 3: ")


# ---- submitit's own executors


def local_executor(folder, parameters):
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=1)
    return executor


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "debug"])
def test_through_submitit_without_slurm(folder, monkeypatch, kind):
    make = {"local": local_executor, "debug": lambda f, p: submitit.AutoExecutor(f, kind)}[kind]
    monkeypatch.setattr(slurm, "make_executor", make)
    monkeypatch.setattr(slurm.Slurm, "poll", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    assert sweep(write(folder, seeds=[0]), *ON_SLURM) == 0
    assert [row["status"] for row in rows(folder)] == ["finished"] * 2


@pytest.mark.slow
def test_when_the_time_is_up_the_training_ends_too(folder, monkeypatch):
    """Slurm warns a job before it ends it: submitit raises in the middle of `train`."""
    monkeypatch.setattr(slurm, "make_executor", local_executor)
    monkeypatch.setattr(slurm, "SETTLE", 0)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    spec, (run, _) = plan(folder, opts={"MODEL.RPN.NMS_THRESH": 0.2})
    job, _ = slurm.Slurm(spec, None, {"time": 5}).start(run)
    wait_for((run.folder / "begun").exists)
    task = _children(job.job._process.pid)[0]
    (training,) = _children(task)
    os.kill(task, signal.SIGUSR2)
    wait_for(job.has_ended)
    assert not os.path.exists(f"/proc/{training}") and not (run.folder / "metrics.json").exists()
    record = json.loads((run.folder / "run.json").read_text())
    assert record["status"] is None and "before its run did" in record["error"][-1]
    job.job._process.wait()


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(number) for number in file.read().split()]


def test_parameters_are_read_as_slurm_means_them():
    words = ["time=90", "mem=32GB", "exclusive=true", "setup=module load cuda", "gres=gpu:1"]
    words.append("account=0123")
    assert slurm.read_parameters(words) == {
        "time": 90, "mem": "32GB", "exclusive": True, "setup": ["module load cuda"],
        "gres": "gpu:1", "account": "0123",
    }  # fmt: skip
    with pytest.raises(UserError, match="got =3"):
        slurm.read_parameters(["=3"])
