"""`alwa-d2 env`: what it says of this environment, and of broken ones that are made up here."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from types import SimpleNamespace

import pytest
import torch
from conftest import REPO

from alwa_d2 import __version__, built, environment, known_problems
from alwa_d2.cli import main

LOSS = "import torch, alwa_d2.layers as l; x = torch.zeros(1, 4); l.box_loss(x, x, 'l1')"
ALONE = f"import sys; sys.modules['detectron2'] = None; {LOSS}"


def python(*words, cwd, path):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environ, capture_output=True, text=True
    )


def rows_of(text):
    """The lines before the first empty one, as a dict."""
    lines = text.partition("\n\n")[0].splitlines()
    return dict(re.split(r"  +", line, maxsplit=1) for line in lines)


# This environment


def test_it_says_versions_and_places_and_that_nothing_is_wrong(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert main.main(["env"]) == 0
    text = capsys.readouterr().out
    rows = rows_of(text)
    assert rows["alwa_d2"].startswith(__version__) and rows["package"] == str(REPO / "alwa_d2")
    assert rows["configs"] == str(REPO / "configs")
    assert rows["data sets"] == f"{tmp_path} (from DETECTRON2_DATASETS)"
    assert rows["PyTorch"].startswith(torch.__version__)
    assert {"Python", "torchvision", "fvcore", "Detectron2", "extension", "kernels"} <= rows.keys()
    assert f"{torch.get_num_threads()} of PyTorch" in rows["threads"]
    lines = text.partition("\n\n")[0].splitlines()
    assert len({line.index(value) for line, value in zip(lines, rows.values())}) == 1  # aligned
    assert "\nwrong: " not in text and text.endswith(
        "\n0 of the problems that are known are here\n"
    )


def test_a_fact_that_cannot_be_had_says_why_and_stops_no_other(monkeypatch):
    def fail():
        raise RuntimeError("on purpose")

    for name in ("torch_build", "gpus", "driver", "cpu_kernels", "threads"):
        monkeypatch.setattr(environment, name, fail)
    rows = dict(environment.facts())
    for name in ("PyTorch", "GPUs", "GPU driver", "CPU kernels", "threads"):
        assert rows[name] == "broken: RuntimeError: on purpose", name
    assert rows["numpy"] == importlib.metadata.version("numpy")


def test_a_check_that_fails_is_told_and_stops_no_other(monkeypatch):
    def check_of_something():
        raise SystemExit("on purpose")

    monkeypatch.setattr(known_problems, "CHECKS", (check_of_something, lambda: ["the next"]))
    failed, following = known_problems.find_all()
    assert "check of something failed: SystemExit: on purpose" in failed.text and failed.wrong
    assert following == "the next"


# The extension


@pytest.fixture
def copy_of_package(tmp_path):
    """A folder with a copy of the package; instead of its library, one that cannot be loaded."""
    kept_out = shutil.ignore_patterns("_C.*", "__pycache__")
    shutil.copytree(REPO / "alwa_d2", tmp_path / "alwa_d2", ignore=kept_out)
    shutil.copytree(REPO / "configs", tmp_path / "configs")
    add_library(tmp_path / "alwa_d2")
    return tmp_path


def add_library(folder, **record):
    library = folder / f"_C{EXTENSION_SUFFIXES[0]}"
    library.write_bytes(b"not a library")
    if record:
        library.with_suffix(".json").write_text(json.dumps(record))


def test_a_library_for_another_pytorch_is_not_loaded_and_one_message_says_what_to_do(
    copy_of_package,
):
    record = dict(torch="1.13.1+cu117", cuda=None, archs=None, compiler="g++ 9.4", python="3.10.1")
    add_library(copy_of_package / "alwa_d2", **record)
    done = python("-c", ALONE, cwd=copy_of_package, path=[copy_of_package])
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: alwa_d2's compiled extension could not be loaded: ")
    assert f"built for PyTorch 1.13.1+cu117, and PyTorch {torch.__version__} is in use" in last
    assert "pip install --no-build-isolation" in last and "ELF" not in done.stderr

    done = python("-m", "alwa_d2", "env", cwd=copy_of_package, path=[copy_of_package])
    assert done.returncode == 1, done.stderr
    assert rows_of(done.stdout)["built for"] == "PyTorch 1.13.1+cu117, Python 3.10.1, by g++ 9.4"
    assert rows_of(done.stdout)["kernels"] == "none"
    assert "\nwrong: alwa_d2's extension is not loaded: it was built for" in done.stdout
    assert f"\n  remedy: {built.REMEDY}\n" in done.stdout


def test_without_a_record_the_loader_says_what_is_wrong(copy_of_package):
    done = python("-c", ALONE, cwd=copy_of_package, path=[copy_of_package])
    assert "file too short" in done.stderr or "invalid ELF header" in done.stderr
    assert "pip install --no-build-isolation" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_damaged_record_is_none(content, tmp_path):
    add_library(tmp_path, torch="1.0.0")
    assert built.read_record(tmp_path) == {"torch": "1.0.0"}
    (library,) = tmp_path.glob("_C.*.so")
    library.with_suffix(".json").write_text(content)
    assert built.read_record(tmp_path) == {}


FITS = dict(torch="2.14.0+cpu", cuda=None)
WITH_CUDA = dict(torch="2.14.1+cu130", cuda="13.0")


@pytest.mark.parametrize(
    "record, in_use, words",
    [
        (FITS, ("2.14.1+cu130", "13.0"), None),
        (WITH_CUDA, ("2.14.1+cu132", "13.2"), None),
        ({}, ("2.4.1", None), None),
        (FITS, ("2.4.1", None), "built for PyTorch 2.14.0+cpu, and PyTorch 2.4.1 is in use"),
        (
            WITH_CUDA,
            ("2.14.1+cpu", None),
            "built for CUDA 13.0, and the PyTorch in use has no CUDA",
        ),
        (
            WITH_CUDA,
            ("2.14.1+cu128", "12.8"),
            "built for CUDA 13.0, and the PyTorch in use has CUDA 12.8",
        ),
    ],
)
def test_what_fits(record, in_use, words, tmp_path):
    add_library(tmp_path, **record)
    reason = built.misfit(*in_use, tmp_path)
    assert reason is None if words is None else words in reason


def test_why_it_was_not_imported(tmp_path):
    absent = ModuleNotFoundError("No module", name="alwa_d2._C")
    assert built.explain_import(absent, tmp_path) == "it is not there"
    (tmp_path / "_C.cpython-27m.so").touch()
    assert built.explain_import(absent, tmp_path) == (
        "it was built for another Python: _C.cpython-27m.so"
    )
    missing = ImportError("_C.so: undefined symbol: _ZN3c10")
    assert built.explain_import(missing, tmp_path) == (
        "_C.so: undefined symbol: _ZN3c10 (as a rule it was built for another PyTorch)"
    )


def test_without_the_extension_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "alwa_d2._C", None)
    rows = dict(environment.facts())
    assert rows["extension"].startswith("not loaded: ") and rows["kernels"] == "none"
    (finding,) = known_problems.extension()
    assert finding.remedy == built.REMEDY and finding.wrong


# PyTorch, torchvision and GPUs


def test_without_pytorch_it_says_so_and_the_rest(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch is broken')")
    done = python("-m", "alwa_d2", "env", cwd=tmp_path, path=[tmp_path, REPO])
    assert done.returncode == 1, done.stderr
    assert rows_of(done.stdout)["PyTorch"] == "broken: ImportError: libtorch is broken"
    assert "wrong: PyTorch cannot be imported: ImportError: libtorch is broken" in done.stdout
    assert "failed:" not in done.stdout


def test_a_torchvision_that_does_not_fit(monkeypatch):
    error = RuntimeError("operator torchvision::nms does not exist")
    monkeypatch.setattr(
        known_problems, "importing", lambda name: error if name == "torchvision" else None
    )
    monkeypatch.setattr(known_problems, "torch_version", lambda: (2, 8))
    (finding,) = known_problems.torchvision()
    assert "nms does not exist" in finding.text and "torchvision==0.23.*" in finding.remedy


def test_a_package_that_is_missing(monkeypatch):
    lines = ["torch>=2.4", "no-such-package", 'submitit; extra == "slurm"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    (finding,) = known_problems.dependencies()
    assert finding.remedy == "pip install no-such-package" and finding.wrong


@pytest.mark.parametrize(
    "driver, cuda, wrong, words",
    [
        ((12, 2), "13.0", True, "runs CUDA 12.2 at most, PyTorch is for CUDA 13.0"),
        ((12, 2), None, False, "built without CUDA"),
        ((12, 2), "12.8", None, None),
        ((13, 0), "12.8", None, None),
        (None, "13.0", None, None),
    ],
)
def test_the_driver(driver, cuda, wrong, words, monkeypatch):
    monkeypatch.setattr(environment, "driver_cuda", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    found = list(known_problems.gpu())
    assert [finding.wrong for finding in found] == ([] if words is None else [wrong])
    assert all(words in finding.text for finding in found)


@pytest.mark.parametrize(
    "cuda_kernels, archs, words",
    [
        (False, None, "alwa_d2 is built for CPUs only"),
        (True, "8.0;9.0", "a GPU has architecture 12.0, and alwa_d2's kernels are for 8.0;9.0"),
        (True, "8.0;9.0+PTX", None),
        (True, None, None),
    ],
)
def test_a_gpu_that_the_kernels_do_not_run_on(cuda_kernels, archs, words, monkeypatch):
    monkeypatch.setattr(environment, "driver_cuda", lambda: (13, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: (12, 0))
    monkeypatch.setattr(environment, "has_cuda_kernels", lambda: cuda_kernels)
    monkeypatch.setattr(built, "read_record", lambda: {"archs": archs})
    found = [finding.text for finding in known_problems.gpu()]
    assert len(found) == (words is not None) and all(words in text for text in found)


@pytest.mark.parametrize(
    "capability, archs, runs",
    [
        ((8, 0), "8.0", True),
        ((8, 6), "8.0;9.0+PTX", True),
        ((7, 5), "8.0;9.0+PTX", False),
        ((9, 0), "8.0", False),
        ((10, 0), "8.0;9.0+PTX", True),
        ((8, 0), "8.6 9.0a", False),
        ((7, 5), "Turing", True),
    ],
)
def test_architectures(capability, archs, runs):
    assert known_problems.runs_on(capability, archs) is runs


@pytest.mark.parametrize(
    "flags, name",
    [
        ("avx avx2 avx512f", "AVX-512"),
        ("abm avx avx2 bmi1 bmi2 f16c fma movbe", "AVX2"),
        ("avx avx2", "baseline"),
    ],
)
def test_the_instruction_set(flags, name, tmp_path, monkeypatch):
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(built, "read_record", lambda: {"compiler": "g++ 12.2"})
    (tmp_path / "cpuinfo").write_text(f"model name: some\nflags\t\t: {flags}\n")
    assert environment.instruction_set(tmp_path / "cpuinfo") == name
    monkeypatch.setattr(built, "read_record", lambda: {"compiler": "Debian clang version 14"})
    assert environment.instruction_set(tmp_path / "cpuinfo").startswith("one version")


def test_instruction_sets_are_those_of_the_kernels():
    text = (REPO / "csrc" / "cpu" / "vectorize.h").read_text()
    assert re.findall(r'target_clones\((.*?)\)', text) == [
        '"avx512f", "arch=x86-64-v3", "default"', '"avx512f", "avx2", "default"',
    ]  # fmt: skip


# Detectron2


@pytest.fixture
def detectron2(tmp_path, monkeypatch):
    """detectron2(path=text, ...): the files of a made-up Detectron2, which is then the one found."""

    def make(**files):
        for name, text in files.items():
            path = tmp_path / "detectron2" / (name.replace("_in_", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(known_problems, "detectron2_folder", lambda: tmp_path / "detectron2")

    return make


def test_it_works_with_a_broken_detectron2(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise RuntimeError('on\\n purpose')")
    done = python("-m", "alwa_d2", "env", cwd=tmp_path, path=[tmp_path, REPO])
    assert done.returncode == 1, done.stderr
    assert rows_of(done.stdout)["Detectron2"] == "broken: RuntimeError: on purpose"
    assert "wrong: Detectron2 is broken: importing detectron2.engine: Runtime" in done.stdout
    assert "\n  remedy: install Detectron2 again" in done.stdout


@pytest.mark.parametrize(
    "name, error, remedy",
    [
        ("detectron2.evaluation", ModuleNotFoundError(name="no_such.thing"), "pip install no_such"),
        (
            "detectron2.model_zoo",
            ModuleNotFoundError(name="detectron2.a"),
            "install Detectron2 again",
        ),
        ("detectron2.engine", SystemExit(3), "install Detectron2 again"),
        ("detectron2.model_zoo", ModuleNotFoundError(name="pkg_resources"), None),
        (
            "alwa_d2.modeling",
            ImportError("cannot import name"),
            "install a Detectron2 that is named",
        ),
    ],
)
def test_what_is_broken_in_detectron2(name, error, remedy, monkeypatch, detectron2):
    detectron2(__init__="")
    monkeypatch.setattr(known_problems, "importing", lambda part: error if part == name else None)
    found = list(known_problems.detectron2())
    assert [finding.wrong for finding in found] == [True] * (remedy is not None)
    assert all(finding.remedy.startswith(remedy) for finding in found)


def test_layers_work_with_a_broken_detectron2(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise AttributeError('no Image.LINEAR')")
    done = python("-c", f"{LOSS}; print('well')", cwd=tmp_path, path=[tmp_path, REPO])
    assert done.stdout == "well\n", done.stderr
    assert "RuntimeWarning: alwa_d2's models" in done.stderr
    assert "no Image.LINEAR" in done.stderr and "alwa-d2 env" in done.stderr


def test_no_detectron2_is_nothing_wrong(monkeypatch):
    monkeypatch.setattr(known_problems, "detectron2_folder", lambda: None)
    (finding,) = known_problems.detectron2()
    assert not finding.wrong and "docs/installing.md" in finding.remedy
    assert [*known_problems.pkg_resources(), *known_problems.removed_names()] == []


def test_pkg_resources(detectron2, monkeypatch):
    find_spec = importlib.util.find_spec
    there = {"pkg_resources": True}
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: there[name] or None if name in there else find_spec(name, *more),
    )
    detectron2(model_zoo_in_model_zoo="import pkg_resources")
    assert list(known_problems.pkg_resources()) == []
    there["pkg_resources"] = False
    (finding,) = known_problems.pkg_resources()
    assert finding.remedy == "pip install 'setuptools<81'" and finding.wrong
    detectron2(model_zoo_in_model_zoo="import importlib.resources")
    assert list(known_problems.pkg_resources()) == []


def test_names_that_pillow_and_numpy_have_no_more(detectron2):
    detectron2(
        data_in_transform="from PIL import Image\nresize(Image.LINEAR, Image.BILINEAR)",
        evaluation_in_lvis="import numpy as np\nnp.zeros(3, np.float)",
    )
    pillow, numpy = known_problems.removed_names()
    assert pillow.text.endswith("does not have: Image.LINEAR (data/transform.py)")
    assert numpy.text.endswith("does not have: np.float (evaluation/lvis.py)")
    assert "pillow<10" in pillow.remedy and "numpy<1.24" in numpy.remedy


def test_only_names_that_are_taken_of_them_count(detectron2):
    detectron2(
        one="# from PIL import Image: Image.LINEAR\nfrom shapes import Image\nImage.LINEAR",
        two="import numpy as np\n'np.float'\nself.np.float\nnp.float32",
    )
    assert list(known_problems.removed_names()) == []


@pytest.mark.parametrize("version, notes", [((2, 5), 0), ((2, 6), 1)])
def test_checkpoints_are_read_with_weights_only(version, notes, monkeypatch):
    pytest.importorskip("fvcore", reason="needs fvcore, whose checkpointer is looked at")
    monkeypatch.setattr(known_problems, "torch_version", lambda: version)
    found = list(known_problems.weights_only())
    assert [finding.wrong for finding in found] == [False] * notes


@pytest.mark.parametrize(
    "names, folder, words",
    [
        ([], "a", "found on the path, not installed"),
        (["detectron2"], "a", "upstream detectron2 0.6 of https://some at abc"),
        (["sal-detectron2"], "a", "redistribution sal-detectron2 0.6 of"),
        (["detectron2"], "b", "found on the path before the installed upstream detectron2 0.6"),
    ],
)
def test_where_detectron2_comes_from(names, folder, words, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "detectron2").mkdir(parents=True)
    origin = json.dumps({"url": "https://some", "vcs_info": {"commit_id": "abc"}})
    distribution = SimpleNamespace(
        version="0.6",
        read_text=lambda name: origin,
        locate_file=lambda name: tmp_path / "a" / name,
    )
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"detectron2": names})
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
    assert environment.installed_as(tmp_path / folder / "detectron2").startswith(words)
