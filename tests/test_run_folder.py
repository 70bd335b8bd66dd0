"""A run's folder is one training's; evaluations during training; what a signal does to processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import REPO
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from linux_processes import children, is_alive
from toy import ToyTrainer, toy_cfg, toy_opts, train

from alwa_d2.config import scale_iterations
from alwa_d2.detectron2_private import last_results
from alwa_d2.engine import Checkpointer, setup, train_model
from alwa_d2.engine.launch import ending_on_signals
from alwa_d2.engine.run_folder import NothingToTrain
from alwa_d2.errors import UserError


def arguments(output, *opts, resume=False, eval_only=False):
    opts = [str(x) for x in toy_opts("AlwaRetinaNet", output, "SOLVER.MAX_ITER", 3, *opts)]
    return SimpleNamespace(config_file="", opts=opts, resume=resume, eval_only=eval_only)


@pytest.fixture
def finished(tmp_path):
    """The folder of a training of three iterations."""
    cfg = setup(arguments(tmp_path))
    train(cfg)
    return tmp_path


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and "log" not in p.name}


def test_another_training_is_refused_with_the_ways_on(finished):
    before = files(finished)
    with pytest.raises(UserError) as error:
        setup(arguments(finished, "SOLVER.BASE_LR", 0.02))
    for way in ("OUTPUT_DIR:", str(finished), "--resume", "another OUTPUT_DIR", "OVERWRITE True"):
        assert way in str(error.value)
    assert files(finished) == before


def test_overwriting_removes_the_training_and_nothing_else(finished):
    (finished / "notes.txt").write_text("mine")
    for folder in ("inference", "inference_TTA"):
        (finished / folder).mkdir()
    (finished / "grid.png").touch()
    setup(arguments(finished, "OVERWRITE", True))
    # The record is the toy training's own, which no run of ours has written.
    assert sorted(files(finished)) == ["config.yaml", "notes.txt", "record_0.jsonl"]
    assert not [path for path in finished.iterdir() if path.is_dir()]


@pytest.mark.parametrize("key", ["config", "weights"])
def test_overwriting_never_removes_what_the_training_needs(key, finished):
    before = files(finished)
    args = arguments(finished, "OVERWRITE", True)
    if key == "config":
        args.config_file = str(finished / "config.yaml")
    else:
        args.opts += ["MODEL.WEIGHTS", str(finished / "model_final.pth")]
    with pytest.raises(UserError, match="^OVERWRITE: .*, which this training needs"):
        setup(args)
    assert files(finished) == before


def test_overwriting_waits_until_the_weights_are_found(finished):
    before = files(finished)
    with pytest.raises(UserError, match="MODEL.WEIGHTS: .* got nowhere.pth"):
        setup(arguments(finished, "OVERWRITE", True, "MODEL.WEIGHTS", "nowhere.pth"))
    assert files(finished) == before


def test_overwriting_waits_until_the_training_can_begin(finished):
    """Data, or a model, that the new training cannot have are found late."""
    (finished / "inference").mkdir()
    (finished / "inference" / "coco_instances_results.json").write_text("[]")
    before = files(finished)
    with pytest.raises(UserError, match="DATASETS.TRAIN"):
        train_model(arguments(finished, "OVERWRITE", True, "SOLVER.BASE_LR", 0.02))
    assert files(finished) == before
    folders = [path.name for path in finished.iterdir() if path.is_dir()]
    assert folders == ["inference"] and len(list((finished / "inference").iterdir())) == 1


def test_what_a_killed_start_had_set_aside_is_removed_too(finished):
    aside = finished / ".overwritten"
    aside.mkdir()
    (aside / "metrics.json").write_text("old")
    setup(arguments(finished, "OVERWRITE", True))
    assert not aside.exists() and not (finished / "metrics.json").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_start_had_set_aside_is_not_lost(resume, finished):
    """The next start finds the training as it was: refuses it, or goes on with it."""
    before = files(finished)
    aside = finished / ".overwritten"
    aside.mkdir()
    for path in [path for path in finished.iterdir() if path.is_file()]:
        path.rename(aside / path.name)
    (finished / "config.yaml").write_text("of the start that was killed")
    expected = NothingToTrain if resume else UserError
    with pytest.raises(expected, match="nothing left" if resume else "holds another training"):
        setup(arguments(finished, resume=resume))
    assert not aside.exists() and files(finished) == before


def test_a_run_that_takes_another_ones_config_does_not_overwrite(tmp_path):
    setup(arguments(tmp_path, "OVERWRITE", True))
    assert "OVERWRITE: false" in (tmp_path / "config.yaml").read_text()


def test_a_refused_resume_leaves_the_config_as_it_was(finished):
    before = files(finished)
    opts = ("SOLVER.MAX_ITER", 5, "MODEL.LOSS_WEIGHTER.NAME", "Uncertainty")
    with pytest.raises(UserError, match="DATASETS.TRAIN"):
        train_model(arguments(finished, *opts, resume=True))
    assert files(finished) == before


def test_files_are_written_whole_or_not_at_all(finished, monkeypatch):
    """A checkpoint of the same name, as where a finished training goes on."""
    before = files(finished)
    trainer = ToyTrainer(toy_cfg("AlwaRetinaNet", finished, "SOLVER.MAX_ITER", 4))

    def fails(data, file):
        file.write(b"half of it")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(torch, "save", fails)
        trainer.checkpointer.save("model_final")
    after = files(finished)
    assert after["model_final.pth"] == before["model_final.pth"]
    assert after.keys() == before.keys()


class Tested(ToyTrainer):
    """Has a data set to evaluate on, and a result of it."""

    results = {"bbox": {"AP": 12.5}}

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        if cls.results is None:
            raise MemoryError("in the evaluation")
        return cls.results


def test_a_run_that_was_stopped_in_its_last_evaluation_goes_on(tmp_path, monkeypatch):
    opts = ("DATASETS.TEST", ("shapes_test",), "MODEL.RETINANET.NUM_CLASSES", 5)

    def run(resume):
        trainer = Tested(setup(arguments(tmp_path, *opts, resume=resume)))
        trainer.resume_or_load(resume)
        trainer.train()
        return trainer

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Tested, "results", None)
        run(False)
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert last_results(run(True)) == Tested.results
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert lines[-1]["bbox/AP"] == 12.5
    with pytest.raises(NothingToTrain):
        run(True)


@pytest.mark.parametrize("processes, iterations", [(1, 12), (4, 3)])
def test_the_iterations_of_so_many_processes_are_done_or_not(
    processes, iterations, finished, monkeypatch
):
    """Three iterations of a config for two processes."""
    monkeypatch.setattr(
        "alwa_d2.engine.defaults.scale_to_processes",
        lambda cfg: scale_iterations(DefaultTrainer.auto_scale_workers(cfg, processes), cfg),
    )
    opts = ("SOLVER.MAX_ITER", 6, "SOLVER.REFERENCE_WORLD_SIZE", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    args = arguments(finished, *opts, "SOLVER.IMS_PER_BATCH", 4, resume=True)
    if iterations == 3:
        with pytest.raises(NothingToTrain, match="3 of SOLVER.MAX_ITER 3 iterations"):
            setup(args)
    else:
        cfg = setup(args)
        assert cfg.SOLVER.MAX_ITER == iterations
        assert "MAX_ITER: 12" in (finished / "config.yaml").read_text()


def test_a_start_that_came_to_nothing_is_no_training(tmp_path):
    setup(arguments(tmp_path))
    (tmp_path / "metrics.json").touch()
    setup(arguments(tmp_path))


def test_a_finished_training_is_not_resumed(finished, capsys):
    before = files(finished)
    with pytest.raises(NothingToTrain, match="nothing left to train, 3 of SOLVER.MAX_ITER 3"):
        setup(arguments(finished, resume=True))
    assert train_model(arguments(finished, resume=True)) is None  # and is no error
    assert "nothing left to train" in capsys.readouterr().out
    assert files(finished) == before
    assert setup(arguments(finished, "SOLVER.MAX_ITER", 4, resume=True)).SOLVER.MAX_ITER == 4


@pytest.mark.parametrize("note", ["", "\n", "model_0000999.pth"])
def test_a_note_that_names_no_checkpoint_is_refused(note, finished):
    (finished / "last_checkpoint").write_text(note)
    with pytest.raises(UserError, match=f"last_checkpoint: expected the name .* {note.strip()!r}"):
        setup(arguments(finished, resume=True))


def test_an_evaluation_never_touches_the_trainings_files(finished):
    before = files(finished)
    cfg = setup(arguments(finished, "SOLVER.BASE_LR", 0.5, eval_only=True))
    assert files(finished) == before
    assert cfg.OUTPUT_DIR == str(finished)
    text = (finished / "inference" / "config.yaml").read_text()
    assert "BASE_LR: 0.5" in text and f"OUTPUT_DIR: {finished}\n" in text
    assert (finished / "inference" / "log.txt").exists()


class Evaluated(ToyTrainer):
    @classmethod
    def test(cls, cfg, model, evaluators=None):
        return {"bbox": {"AP": 12.5}}

    def build_writers(self):
        """As Detectron2's documentation has it: without a call of the parent's."""
        folder = self.cfg.OUTPUT_DIR
        return [JSONWriter(f"{folder}/metrics.json"), TensorboardXWriter(folder)]


def test_all_evaluations_are_written_whatever_the_period(tmp_path):
    trainer = Evaluated(
        toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 30, "TEST.EVAL_PERIOD", 7)
    )
    trainer.resume_or_load(False)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    evaluated = [line["iteration"] for line in lines if "bbox/AP" in line]
    assert evaluated == [6, 13, 20, 27, 30]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Scalars("bbox/AP")] == evaluated


def test_weights_to_evaluate_have_to_be_there_and_fit(finished):
    weights = str(finished / "model_final.pth")
    model = ToyTrainer.build_model(toy_cfg("AlwaRetinaNet", finished))
    Checkpointer(model).load_all_weights(weights)
    with pytest.raises(UserError, match="MODEL.WEIGHTS: expected the checkpoint .* got ''"):
        Checkpointer(model).load_all_weights("")
    with pytest.raises(UserError, match="MODEL.WEIGHTS: expected a checkpoint, got nowhere.pth"):
        Checkpointer(model).load_all_weights("nowhere.pth")
    other = ToyTrainer.build_model(
        toy_cfg("AlwaRetinaNet", finished, "MODEL.RETINANET.NUM_CLASSES", 7)
    )
    words = "expected a checkpoint of this model to evaluate; .*: 2 tensors, such as head.cls_score"
    with pytest.raises(UserError, match=words):
        Checkpointer(other).load_all_weights(weights)
    # A training may start from it: the classes' weights are new then.
    Checkpointer(other).load(weights, checkpointables=[])


def test_unreachable_weights_name_the_key(tmp_path):
    model = ToyTrainer.build_model(toy_cfg("AlwaRetinaNet", tmp_path))
    address = "http://127.0.0.1:9/weights.pth"  # the port that discards; nobody listens
    with pytest.raises(UserError, match=f"MODEL.WEIGHTS: could not get {address}"):
        Checkpointer(model).load(address, checkpointables=[])


def test_a_batch_that_cannot_be_shared_names_the_key(tmp_path, monkeypatch):
    monkeypatch.setattr("alwa_d2.engine.trainer.comm.get_world_size", lambda: 2)
    words = "SOLVER.IMS_PER_BATCH: expected a multiple of 2, the number of processes, got 3"
    with pytest.raises(UserError, match=words):
        ToyTrainer(toy_cfg("AlwaRetinaNet", tmp_path, "SOLVER.IMS_PER_BATCH", 3))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_to_the_parent_alone_ends_all_processes(processes, number, tmp_path):
    command = [sys.executable, str(REPO / "tests" / "toy.py"), "--dist-url", "auto"]
    command += ["--num-gpus", str(processes)]
    opts = toy_opts("AlwaRetinaNet", tmp_path, "SOLVER.MAX_ITER", 100000, "SOLVER.IMS_PER_BATCH", 4)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    run = subprocess.Popen(
        [*command, *map(str, opts)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(1200):
            records = list(tmp_path.glob("record_*.jsonl"))
            if run.poll() is not None or len(records) == processes:
                break
            time.sleep(0.1)
        assert run.poll() is None, run.communicate()[0].decode()
        pids = children(run.pid)
        run.send_signal(number)
        run.communicate(timeout=60)
        assert run.returncode == 128 + number
        for _ in range(100):
            if not any(map(is_alive, pids)):
                break
            time.sleep(0.1)
        assert not any(map(is_alive, pids))
    finally:
        run.kill()


JOINS = """
from types import SimpleNamespace
import torch.distributed as dist
from alwa_d2.engine import launch
join = dist.init_process_group
def told(*args, **kwargs):
    print("joins", flush=True)
    join(*args, **kwargs)
dist.init_process_group = told
args = SimpleNamespace(config_file="", opts=["MODEL.DEVICE", "cpu"], num_gpus=1, num_machines=1)
launch(print, args)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_ends_a_process_that_waits_for_the_others(rank, number):
    """As where a launcher's MASTER_ADDR is wrong; PyTorch waits without running Python."""
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        env |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    command = [sys.executable, "-W", "ignore", "-c", JOINS]
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout.readline() == "joins\n"
        time.sleep(1)  # into PyTorch's waiting
        run.send_signal(number)
        run.communicate(timeout=30)
    finally:
        run.kill()
    assert run.returncode == -number  # shells make 128 + number of it


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_error_of_what_a_signal_interrupted_does_not_hide_the_signal(number):
    """PyTorch's writer of checkpoints raises one when it is left in the middle of a file."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, ending_on_signals():
        try:
            signal.raise_signal(number)
        finally:
            raise RuntimeError("unexpected pos 64 vs 0")
    assert caught.value.code == 128 + number and signal.getsignal(number) is before
    with pytest.raises(RuntimeError, match="of another kind"), ending_on_signals():
        raise RuntimeError("of another kind")
