"""train_net.py from the command line: a short run, a resumed one, an evaluation, what it refuses."""

import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from tiny_voc import INTERVAL, make_voc_root, tiny_settings  # noqa: F401 (a fixture)

from alwa_d2.cli.main import main

CONFIG = str(REPO / "configs" / "retina_alwa.yaml")


def train_net(voc_root, output, *opts, flags=(), max_iter=6):
    """Runs train_net.py in a process of its own, with a model small enough for a test."""
    settings = tiny_settings(voc_root, "tiny") | {
        "SOLVER.MAX_ITER": max_iter, "SOLVER.CHECKPOINT_PERIOD": 3, "SEED": 1, "OUTPUT_DIR": output,
    }  # fmt: skip
    pairs = [str(text) for pair in settings.items() for text in pair]
    command = [sys.executable, str(REPO / "train_net.py"), "--config-file", CONFIG, *flags]
    command += [*pairs, *opts]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=output.parent)
    return done.returncode, done.stdout + done.stderr


def metrics(output):
    """iteration -> scalars; evaluation after training has a line of its own, one iteration on."""
    lines = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line for line in lines}


@pytest.fixture(scope="module")
def finished_run(voc_root, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    code, log = train_net(voc_root, output)
    assert code == 0, log
    return output, log


def test_a_run_leaves_checkpoint_metrics_and_evaluation(finished_run):
    output, log = finished_run
    assert "Running on " in log
    assert (output / "model_final.pth").exists() and (output / "config.yaml").exists()
    assert list(output.glob("events.out.tfevents.*"))
    last = metrics(output)[5]
    for name in (
        "loss_cls", "loss_box_reg", "unweighted/loss_cls", "unweighted/loss_box_reg",
        "alwa/weight_cls", "alwa/weight_box_reg", "alwa/stat_cls", "alwa/stat_box_reg",
        "per_anchor/cls_mean", "per_anchor/cls_std", "per_anchor/box_reg_mean",
        "per_anchor/box_reg_std", "num_pos_anchors",
    ):  # fmt: skip
        assert name in last, name
    assert {"bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/AP-cat"} <= metrics(output)[6].keys()
    assert 0 < last["alwa/weight_cls"] <= 1 and last["alwa/weight_box_reg"] == 1


def test_a_checkpoint_holds_the_weighter(finished_run):
    state = torch.load(finished_run[0] / "model_final.pth", weights_only=False)["model"]
    assert state["loss_weighter.window"].shape == (INTERVAL, 2)
    assert (
        int(state["loss_weighter.window_start"]) == INTERVAL
        and int(state["loss_weighter.slot"]) == 2
    )
    assert float(state["loss_normalizer"]) != 100


def test_eval_only(finished_run, voc_root, tmp_path):
    output, _ = finished_run
    weights = str(output / "model_final.pth")
    code, log = train_net(
        voc_root,
        tmp_path / "eval",
        "MODEL.WEIGHTS",
        weights,
        flags=("--eval-only", "--num-gpus", "1"),
    )
    assert code == 0, log
    assert "AP50" in log and not (tmp_path / "eval" / "model_final.pth").exists()


def test_resume_goes_on_in_the_window(finished_run, voc_root, tmp_path):
    """Three iterations, then three more with --resume; one window of four spans the break."""
    output = tmp_path / "run"
    assert train_net(voc_root, output, max_iter=3)[0] == 0
    state = torch.load(output / "model_final.pth", weights_only=False)["model"]
    assert int(state["loss_weighter.slot"]) == 3
    code, log = train_net(voc_root, output, flags=("--resume",))
    assert code == 0, log
    assert "Starting training from iteration 3" in log
    resumed = torch.load(output / "model_final.pth", weights_only=False)["model"]
    assert int(resumed["loss_weighter.window_start"]) == INTERVAL
    assert int(resumed["loss_weighter.slot"]) == 2
    assert {2, 5} <= metrics(output).keys()


def test_training_from_a_checkpoint_without_resume_starts_with_new_weights(
    finished_run, voc_root, tmp_path
):
    weights = str(finished_run[0] / "model_final.pth")
    code, log = train_net(voc_root, tmp_path / "run", "MODEL.WEIGHTS", weights, max_iter=2)
    assert code == 0, log
    assert log.count("Training starts anew from") == 1
    state = torch.load(tmp_path / "run" / "model_final.pth", weights_only=False)["model"]
    assert int(state["loss_weighter.window_start"]) == 0 and int(state["loss_weighter.slot"]) == 2


REFUSED = [
    (
        ("MODEL.RETINANET.NUM_CLASSES", "7"),
        "MODEL.RETINANET.NUM_CLASSES: expected 2, the number of classes of tiny_train (cat, dog), got 7",
    ),
    (
        ("MODEL.LOSS_WEIGHTER.NAME", "alwa"),
        "MODEL.LOSS_WEIGHTER.NAME: expected one of ALWA, CoV, DWA",
    ),
    (("DATASETS.TRAIN", "('nowhere',)"), "got 'nowhere'"),
    (("DATASETS.REGISTER", "[{'name': 'a', 'format': 'voc', 'root': '/no', 'split': 's'}]"), "/no"),
    (("MODEL.ALWA.INTERVALL", "5"), "MODEL.ALWA.INTERVALL; nearest: MODEL.ALWA.INTERVAL"),
    (("SOLVER.MAX_ITER",), "odd length"),
    (("SOLVER.MAX_ITER", "many"), "SOLVER.MAX_ITER: expected int, such as 6, got many (str)"),
    (
        ("MODEL.LOSS_WEIGHTER.SUM_TO", "4"),
        "SUM_TO: expected float, such as 0.0, got 4 (int); write 4.0",
    ),
    (("INPUT.FORMAT", "3"), "INPUT.FORMAT: expected str, such as BGR, got 3 (int)"),
    (("MODEL.WEIGHTS", "no.pth"), "MODEL.WEIGHTS: expected a checkpoint, got no.pth"),
    (("MODEL.DEVICE", "toaster"), "MODEL.DEVICE: "),
    (
        ("MODEL.META_ARCHITECTURE", "Typo"),
        "MODEL.META_ARCHITECTURE: expected a name of Detectron2's registry",
    ),
    (("SOLVER.CHECKPOINT_PERIOD", "0"), "SOLVER.CHECKPOINT_PERIOD: expected at least 1, got 0"),
    (("OUTPUT_DIR", "/dev/null/run"), "/dev/null/run: Not a directory"),
]


def mistake(log):
    """The one line on a mistake; what is logged before it goes elsewhere, see `train_net`."""
    lines = [line for line in log.splitlines() if line.startswith("alwa-d2 train: ")]
    assert len(lines) == 1 and log.splitlines()[-1] == lines[0], log
    assert "Traceback" not in log and "Starting training" not in log
    return lines[0]


@pytest.mark.parametrize("opts, words", REFUSED)
def test_refused_before_training_in_one_line(voc_root, tmp_path, opts, words):
    code, log = train_net(voc_root, tmp_path / "run", *opts)
    assert code == 2, log
    assert words in mistake(log)


def test_of_several_processes_too(voc_root, tmp_path):
    """Whether the first process finds the mistake or those that it starts."""
    opts, two = ("MODEL.DEVICE", "cpu"), ("--num-gpus", "2")
    code, log = train_net(voc_root, tmp_path / "a", *opts, "NO.KEY", "1", flags=two)
    assert code == 2 and log == "alwa-d2 train: Non-existent key: NO.KEY; nearest: none\n"
    code, log = train_net(voc_root, tmp_path / "b", *opts, "MODEL.WEIGHTS", "no.pth", flags=two)
    assert code == 2, log
    line = "alwa-d2 train: MODEL.WEIGHTS: expected a checkpoint, got no.pth, which is no file"
    assert mistake(log) == line
    assert "Warning" not in log and "SIGTERM" not in log
    flags = (*two, "--traceback")
    code, log = train_net(voc_root, tmp_path / "c", *opts, "MODEL.WEIGHTS", "no.pth", flags=flags)
    assert code == 2 and log.splitlines()[-1].startswith("alwa-d2 train: MODEL.WEIGHTS: ")
    assert "Traceback" in log and "check_is_there" in log  # where it was, in the started process


@pytest.mark.parametrize(
    "text, words",
    [
        ("SOLVER:\n  MAX_ITERR: 5\n", "Non-existent config key: SOLVER.MAX_ITERR; nearest: SOLVER"),
        ("SOLVER: [1\n", "line "),
        ("_BASE_: no.yaml\n", "no.yaml"),
        ("", "expected a mapping from config keys to values, got nothing"),
        ("just text", "got a scalar"),
        (
            "SEED: 1\nOUTPUT_DIR: !!python/object/apply:os.getcwd []",
            "line 2: expected plain YAML, ",
        ),
    ],
)
def test_broken_config_files_are_named(tmp_path, text, words, capsys, monkeypatch):
    # A handler that an earlier test's training has left may write to a file that is closed.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    (tmp_path / "own.yaml").write_text(text)
    assert main(["train", "--config-file", str(tmp_path / "own.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"alwa-d2 train: {tmp_path}/own.yaml: ") and error.count("\n") == 1
    assert words in error


def test_an_error_in_training_keeps_its_traceback(voc_root, tmp_path):
    opts = ("SOLVER.BASE_LR", "1e30", "SOLVER.WARMUP_ITERS", "0")
    code, log = train_net(voc_root, tmp_path / "run", *opts)
    assert code == 1
    assert "Traceback" in log and "FloatingPointError: Loss became infinite or NaN" in log
    assert "alwa-d2 train:" not in log


def test_a_file_that_is_missing_in_training_is_no_mistake_in_the_arguments(
    voc_root, tmp_path, monkeypatch, capsys
):
    def train(main, args):
        raise OSError(28, "No space left on device", "model_0000005.pth")

    monkeypatch.setattr("alwa_d2.engine.launch", train)
    assert main(["train", "--config-file", "retina_alwa.yaml"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_finished_training_has_nothing_to_resume(finished_run, voc_root):
    output, _ = finished_run
    code, log = train_net(voc_root, output, flags=("--resume",))
    assert code == 0, log
    assert log.splitlines()[-1].endswith(
        "nothing left to train, 6 of SOLVER.MAX_ITER 6 iterations are done"
    )


def test_the_file_itself_is_short():
    assert len((REPO / "train_net.py").read_text().splitlines()) <= 10


# Run time: seven minutes on one core.
@pytest.mark.long
def test_the_small_faster_rcnn_learns(tmp_path):
    """configs/faster_rcnn_alwa.yaml as it is, on the embedded set."""
    config = str(REPO / "configs" / "faster_rcnn_alwa.yaml")
    command = [sys.executable, "train_net.py", "--config-file", config]
    done = subprocess.run(
        [*command, "OUTPUT_DIR", str(tmp_path)], cwd=REPO, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "metrics.json").read_text().splitlines()[-1])["bbox/AP50"] >= 50
