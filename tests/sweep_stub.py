"""A sweep of trainings that take no time: a stub in place of `alwa-d2 train`, and what it left."""

import csv
import json
import os
import sys

import pytest
import yaml
from conftest import REPO

from alwa_d2.cli.main import main

# What a training leaves. Its AP is 10 times the classification weight, plus the seed squared.
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


@pytest.fixture(name="folder")
def stubbed_folder(tmp_path, monkeypatch):
    """The current directory, with the stub in place of the training."""
    from alwa_d2.sweep import local

    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "TRAIN", [sys.executable, str(tmp_path / "stub.py")])
    monkeypatch.setattr(local.Local, "poll", 0.02)
    return tmp_path


# The command in a process of its own, with the stub beside it.
DRIVER = """
import sys
from alwa_d2.cli.main import main
from alwa_d2.sweep import local
local.TRAIN = [sys.executable, "stub.py"]
sys.exit(main(["sweep", *sys.argv[1:]]))
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO)}


def sweep(*arguments):
    """`alwa-d2 sweep`; returns its exit status."""
    return main(["sweep", *arguments])


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
