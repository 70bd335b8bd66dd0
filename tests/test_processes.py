"""Several processes: one weight for all, in one collective a window; those that die; torchrun."""

import json
import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import REPO
from test_resume import assert_same_runs, load, run_toy, what_was_seen
from toy import INTERVAL, read_records, toy_opts

from alwa_d2.engine import launch
from alwa_d2.weighting import ALWA

# Model, its pairs of losses, and options.
RUNS = {
    "RetinaNet": ("AlwaRetinaNet", 1),
    "RetinaNet authors": ("AlwaRetinaNet", 1, "MODEL.ALWA.RULE", "authors"),
    "R-CNN": ("AlwaGeneralizedRCNN", 2),
}


@pytest.mark.parametrize(
    "name, size", [("RetinaNet", 2), ("RetinaNet authors", 3), ("R-CNN", 2), ("R-CNN", 3)]
)
def test_processes_agree(name, size, tmp_path):
    """Three windows on different data, of which one process has fewer images and at times no box."""
    architecture, pairs, *opts = RUNS[name]
    opts += ["SOLVER.IMS_PER_BATCH", 2 * size]
    done = run_toy(tmp_path, architecture, *opts, flags=("--num-gpus", str(size)))
    assert done.returncode == 0, done.stderr
    for rank in range(size):  # GPUs are hidden, where there are any
        process = json.loads((tmp_path / f"process_{rank}.json").read_text())
        assert process == {"visible": "", "threads": 1, "local_size": size, "backend": "gloo"}
    runs = [read_records(tmp_path, rank) for rank in range(size)]
    iterations = range(3 * INTERVAL)
    assert all(run.keys() == set(iterations) for run in runs)

    for i in iterations:
        first, *others = (run[i] for run in runs)
        for other in others:  # to the bit
            assert other["weights"] == first["weights"]
            assert other["statistics"] == first["statistics"]
            assert other["observed"] != first["observed"]
        # One collective for each pair at each window's end, one at the first step, which compares
        # the processes' states, and none in between.
        assert first["collectives"] == (pairs if (i + 1) % INTERVAL == 0 or i == 0 else 0)

    # One process that sees the mean of the losses.
    keys = list(runs[0][0]["observed"])
    for cls_key, reg_key in zip(keys[::2], keys[1::2]):
        weighter = ALWA(
            cls_key, reg_key, interval=INTERVAL, rule=dict(zip(opts[::2], opts[1::2])).get("MODEL.ALWA.RULE", "balance")
        )  # fmt: skip
        for i in iterations:
            means = {
                key: statistics.fmean(float.fromhex(run[i]["observed"][key]) for run in runs)
                for key in (cls_key, reg_key)
            }
            weighter({key: torch.tensor(x, dtype=torch.float64) for key, x in means.items()})
            for key, weight in weighter.weights.items():
                expected = float.fromhex(runs[0][i]["weights"][key])
                assert float(weight) == pytest.approx(expected, rel=1e-9)
    assert any(len({runs[0][i]["weights"][key] for i in iterations}) > 1 for key in keys)


def test_metrics_are_means_over_the_processes(tmp_path):
    opts = ("AlwaRetinaNet", "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 1)
    done = run_toy(tmp_path, *opts, flags=("--num-gpus", "2"))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])
    for key in ("loss_cls", "loss_box_reg"):
        losses = [float.fromhex(read_records(tmp_path, r)[0]["observed"][key]) for r in (0, 1)]
        assert losses[0] != losses[1]
        assert metrics[f"unweighted/{key}"] == pytest.approx(statistics.fmean(losses), rel=1e-6)
        assert metrics[key] == pytest.approx(statistics.fmean(losses), rel=1e-6)


def test_normalizer_of_each_process_or_of_all(tmp_path):
    """Detectron2's is each process's own; the key averages the counts, in a collective each."""
    opts = ("AlwaRetinaNet", "SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 3)
    normalizers = {}
    for synced in (False, True):
        output = tmp_path / str(synced)
        key = ("MODEL.RETINANET.SYNC_NORMALIZER", synced)
        done = run_toy(output, *opts, *key, flags=("--num-gpus", "2"))
        assert done.returncode == 0, done.stderr
        ranks = load(output / "model_final.pth")["trainer"]["hooks"]["RankState"]["ranks"]
        normalizers[synced] = [float(rank["buffers"]["loss_normalizer"]) for rank in ranks]
    assert normalizers[False][0] != normalizers[False][1]
    assert normalizers[True][0] == normalizers[True][1]
    assert normalizers[True][0] == pytest.approx(statistics.fmean(normalizers[False]), rel=1e-6)
    for synced in (False, True):
        rows = read_records(tmp_path / str(synced)).values()
        # One more in the first iteration: the weighter's comparison of the processes.
        assert [row["collectives"] for row in rows] == [1 + synced, synced, synced]


def test_killed_process_stops_the_others_and_the_run_resumes(tmp_path):
    """SIGKILL of one process in the middle of a window; each one's own state comes back."""
    opts = ("AlwaGeneralizedRCNN", "SOLVER.IMS_PER_BATCH", 4, "SOLVER.CHECKPOINT_PERIOD", 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = ("--num-gpus", "2")
    done = run_toy(whole, *opts, flags=flags)
    assert done.returncode == 0, done.stderr
    start = time.monotonic()
    done = run_toy(killed, *opts, flags=flags, env={"TOY_STOP": "7 kill 1"})
    assert done.returncode != 0 and "SIGKILL" in done.stderr
    assert time.monotonic() - start < 60
    assert (killed / "last_checkpoint").read_text() == "model_0000005.pth"
    done = run_toy(killed, *opts, flags=(*flags, "--resume"))
    assert done.returncode == 0, done.stderr
    assert_same_runs(whole, killed)
    assert what_was_seen(whole, 1) == what_was_seen(killed, 1)

    # With another number of processes it goes on, and says what is lost.
    done = run_toy(killed, *opts, "SOLVER.MAX_ITER", 14, flags=("--resume",))
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("has the state of 2 processes, not of 1") == 1


def test_a_nan_in_the_last_iteration_ends_all_at_once(tmp_path):
    """The failing process does not wait for the others in an evaluation that they never come to."""
    opts = (
        "AlwaRetinaNet",
        "SOLVER.IMS_PER_BATCH",
        4,
        "SOLVER.MAX_ITER",
        2,
        "SOLVER.BASE_LR",
        1e30,
    )
    start = time.monotonic()
    done = run_toy(tmp_path, *opts, flags=("--num-gpus", "2"), env={"TOY_TIMEOUT": "200"})
    assert done.returncode != 0
    assert "Loss became infinite or NaN at iteration=1" in done.stderr
    assert time.monotonic() - start < 100


def environments(size):
    """What torchrun would set for each process of one machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(size):
        yield {
            "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip


def start(output, own, *opts, **more):
    command = [sys.executable, str(REPO / "tests" / "toy.py")]
    command += map(str, toy_opts("AlwaRetinaNet", output, "SOLVER.IMS_PER_BATCH", 4, *opts))
    env = {"OMP_NUM_THREADS": 1, "PYTHONPATH": REPO, **own, **more}
    env = {**os.environ, **{key: str(value) for key, value in env.items()}}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_sleeping_process_is_an_error_after_the_timeout(tmp_path):
    """No launcher looks after these two; the first waits for the second's gradients."""
    stop = {"TOY_STOP": "5 sleep 1", "TOY_TIMEOUT": 10}
    first, second = (start(tmp_path, own, **stop) for own in environments(2))
    try:
        output = first.communicate(timeout=120)[0].decode()
        assert first.returncode != 0
        assert "Timed out" in output or "timeout" in output.lower(), output
        assert second.poll() is None
    finally:
        second.send_signal(signal.SIGKILL)
        second.communicate()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"


def test_torchrun(tmp_path):
    """Its processes are joined, with the same result as those that --num-gpus starts."""
    opts = ("AlwaRetinaNet", "SOLVER.IMS_PER_BATCH", 4)
    done = run_toy(tmp_path / "spawned", *opts, flags=("--num-gpus", "2"))
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(REPO / "tests" / "toy.py")]
    command += map(str, toy_opts(opts[0], tmp_path / "joined", *opts[1:]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        spawned, joined = (read_records(tmp_path / x, rank) for x in ("spawned", "joined"))
        assert spawned == joined
        process = json.loads((tmp_path / "joined" / f"process_{rank}.json").read_text())
        assert process == {"visible": "", "threads": 1, "local_size": 2, "backend": "gloo"}


def test_slurm(tmp_path):
    """Its names of rank and local rank; two tasks on the one machine."""
    runs = []
    for own in environments(2):
        own["SLURM_PROCID"], own["SLURM_LOCALID"] = own.pop("RANK"), own.pop("LOCAL_RANK")
        own["SLURM_STEP_TASKS_PER_NODE"] = "2(x1)"
        del own["LOCAL_WORLD_SIZE"]
        runs.append(start(tmp_path, own, "SOLVER.MAX_ITER", 2))
    for run in runs:
        output = run.communicate(timeout=120)[0].decode()
        assert run.returncode == 0, output
    for rank in (0, 1):
        process = json.loads((tmp_path / f"process_{rank}.json").read_text())
        assert (process["local_size"], process["backend"]) == (2, "gloo")


def arguments(*opts, num_gpus=1):
    return SimpleNamespace(
        config_file="", opts=list(opts), num_gpus=num_gpus,
        num_machines=1, machine_rank=0, dist_url="auto",
    )  # fmt: skip


@pytest.fixture
def environment(monkeypatch):
    """Without a launcher's variables; what launch sets is taken back."""
    of_torchrun = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    of_slurm = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    for name in (*of_torchrun, *of_slurm):
        monkeypatch.delenv(name, raising=False)
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return monkeypatch


def test_refusals(environment):
    with pytest.raises(ValueError, match=r"--num-gpus 99: found \d+ GPUs \(MODEL.DEVICE cpu"):
        launch(print, arguments(num_gpus=99))
    with pytest.raises(ValueError, match="MODEL.DEVICE: expected cuda for several .* got cuda:1"):
        launch(print, arguments("MODEL.DEVICE", "cuda:1", num_gpus=2))
    on_cpu = ("MODEL.DEVICE", "cpu")
    environment.setenv("WORLD_SIZE", "four")
    with pytest.raises(ValueError, match="WORLD_SIZE: expected a number, got 'four'"):
        launch(print, arguments(*on_cpu))
    environment.setenv("WORLD_SIZE", "4")
    for name, value in (("LOCAL_WORLD_SIZE", "4"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        words = rf"{name}: expected a number \(WORLD_SIZE is 4; torchrun sets both\), got ''"
        with pytest.raises(ValueError, match=words):
            launch(print, arguments(*on_cpu))
        environment.setenv(name, value)
    with pytest.raises(ValueError, match="--num-gpus 2 .* the environment has 4 processes"):
        launch(print, arguments(*on_cpu, num_gpus=2))
    environment.delenv("LOCAL_WORLD_SIZE")
    environment.setenv("SLURM_STEP_TASKS_PER_NODE", "3,1")
    with pytest.raises(ValueError, match="LOCAL_WORLD_SIZE: expected a number .* got '3,1'"):
        launch(print, arguments(*on_cpu))


def test_other_processes_of_the_program_go_on(environment):
    """A program may have started some of its own before it calls `launch`."""
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        launch(print, arguments("MODEL.DEVICE", "cpu", num_gpus=2))
        assert other.is_alive()
    finally:
        other.kill()
        other.join()


@pytest.mark.parametrize("given", ["none", "one", "empty", "a launcher's"])
def test_one_process_needs_no_group(given, environment):
    """Whatever a launcher or the system of a cluster sets."""
    sizes = {"one": {"WORLD_SIZE": "1"}, "empty": {"WORLD_SIZE": ""}}
    sizes |= {"none": {}, "a launcher's": next(environments(1))}
    for name, value in sizes[given].items():
        environment.setenv(name, str(value))
    args = arguments("MODEL.DEVICE", "cpu")
    assert launch(lambda own: own is args, args)
    assert not torch.distributed.is_initialized()


def test_gloos_threads_end_before_the_interpreter(tmp_path):
    """One that still wants Python's lock when the interpreter ends would abort the process."""
    code = """
        import os, sys
        import torch
        from torch import distributed as dist
        from detectron2.utils import comm
        from alwa_d2.engine.launch import _run

        def threads():
            tasks = os.listdir("/proc/self/task")
            return [name for task in tasks if "gloo" in (name := open(f"/proc/self/task/{task}/comm").read())]

        def main(args):
            model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
            model.cycle = [model]
            model(torch.ones(1, 2)).sum().backward()
            comm._get_global_gloo_group()
            assert threads()

        dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
        comm.create_local_process_group(1)
        _run(main, None)
        assert threads() == []
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "store")]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
