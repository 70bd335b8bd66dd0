"""House rules: each op has all its parts under one name, imports go one way, files stay small."""

import ast
import importlib
import re
import subprocess
import sys

import pytest
import torch
from conftest import BOX_KINDS, REPO

from alwa_d2 import layers

# Each op with the stem of its files.
OPS = {
    "box_loss": "box_loss",
    "dense_box_loss": "dense_box_loss",
    "label_anchors": "label_anchors",
    "loss_scales": "loss_scales",
    "sigmoid_focal_loss": "focal_loss",
}
WITHOUT_GRADIENT = {"label_anchors", "loss_scales"}


def registers(source, name):
    return re.search(rf'm\.impl\(\s*"{name}"', (REPO / "csrc" / source).read_text())


@pytest.mark.parametrize("op, stem", OPS.items())
def test_every_op_has_all_its_parts(op, stem):
    schemas = (REPO / "csrc" / "library.cpp").read_text()
    tests = (REPO / "tests" / f"test_{stem}.py").read_text()
    python = (REPO / "alwa_d2" / "layers" / f"{stem}.py").read_text()
    for name in (op,) if op in WITHOUT_GRADIENT else (op, f"{op}_backward"):
        assert f'"{name}(' in schemas
        for source in (f"cpu/{stem}.cpp", f"cuda/{stem}.cu", "meta.cpp"):
            assert registers(source, name), source
        assert name in tests
        overload = getattr(torch.ops.alwa_d2, name).default
        for key in ("CPU", "Meta", "Autograd"):
            assert overload.has_kernel_for_dispatch_key(getattr(torch._C.DispatchKey, key)), key
    if op not in WITHOUT_GRADIENT:
        assert registers(f"autograd/{stem}.cpp", op)
    assert f"torch.ops.alwa_d2.{op}(" in python
    assert hasattr(importlib.import_module("alwa_d2.layers.reference"), op)
    assert getattr(layers, op).__doc__


def test_the_table_of_kinds_is_one():
    table = re.findall(r'if \(kind == "(\w+)"\)', (REPO / "csrc" / "box_loss.h").read_text())
    assert tuple(table) == layers.BOX_LOSS_KINDS == BOX_KINDS
    for kind in BOX_KINDS:
        header = "smooth_l1" if kind == "l1" else kind
        assert (REPO / "csrc" / "losses" / f"{header}.h").exists()


def test_formulas_know_no_tensors():
    for header in (REPO / "csrc" / "losses").glob("*.h"):
        text = header.read_text()
        assert "ATen" not in text and "torch/" not in text, header


# Each room may import from those after it, and all of them from the files beside the rooms.
STAIR = ("cli", "sweep", "analysis", "engine", "modeling", "data", "weighting", "layers")
# What it may not beyond that: layers and weighting are each of use alone, data of use for any model.
APART = {"data": ("weighting", "layers"), "weighting": ("layers",)}

# The files beside the rooms, and the package's version.
ROOMLESS = {path.stem for path in (REPO / "alwa_d2").glob("*.py")} | {"_C", "__version__"}


def imports_of(path):
    """Absolute names of what a file of the package imports, inside of functions too."""
    package = path.relative_to(REPO).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*start, *([node.module] if node.module else [])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_imports_run_down_one_stair():
    rooms = {path.parent.name for path in (REPO / "alwa_d2").glob("*/__init__.py")}
    assert rooms == set(STAIR)
    for place, room in enumerate(STAIR):
        below = set(STAIR[place:]) - set(APART.get(room, ()))
        for path in (REPO / "alwa_d2" / room).rglob("*.py"):
            for name in imports_of(path):
                parts = name.split(".")
                assert parts[0] != "alwa_d2" or parts[1] in below | ROOMLESS, (
                    f"{path} imports {name}"
                )
                if room in ("layers", "weighting"):
                    assert parts[0] != "detectron2", f"{path} imports {name}"


def test_what_lies_beside_the_rooms_imports_from_none_of_them():
    """But for the two files that start something."""
    for path in (REPO / "alwa_d2").glob("*.py"):
        if path.name not in ("__init__.py", "__main__.py"):
            for name in imports_of(path):
                assert name.split(".")[0] != "alwa_d2" or name.split(".")[1] in ROOMLESS, path.name


def test_layers_and_weighting_work_without_detectron2():
    code = """
import importlib.util, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'detectron2':
            raise ModuleNotFoundError(name)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == 'detectron2' else find_spec(name, *a)
sys.meta_path.insert(0, Hidden())
import torch
from alwa_d2 import add_alwa_config
from alwa_d2.layers import box_loss, dense_box_loss, dense_focal_loss, LossStats
from alwa_d2.weighting import ALWA, LossWeighter, build_loss_weighter, LOSS_WEIGHTER_REGISTRY
print(float(box_loss(torch.tensor([[0., 0, 2, 2]]), torch.tensor([[0., 0, 2, 1]]), 'iou')))
print(ALWA()({'loss_cls': torch.tensor(1.), 'loss_box_reg': torch.tensor(1.)})['loss_cls'].item())
assert not any(name.startswith('detectron2') for name in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.5", "1.0"]


def test_without_the_extension_importing_works_and_calling_says_what_to_do():
    code = """
import sys
sys.modules['alwa_d2._C'] = None
import torch
from alwa_d2.layers import box_loss, dense_box_loss, label_anchors, dense_focal_loss, reference
x = torch.zeros(1, 4)
assert reference.box_loss(x, x, 'l1').item() == 0
mask = torch.ones(1, 1, dtype=torch.bool)
for call in (
    lambda: box_loss(x, x, 'l1'),
    lambda: dense_box_loss(x, x[None], x[None], mask, 'l1'),
    lambda: label_anchors(x, [x], [mask[0].long()], background=1),
    lambda: dense_focal_loss(x[None], mask.long()),
):
    try:
        call()
    except RuntimeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    assert len(messages) == 4 and len(set(messages)) == 1
    assert "could not be loaded" in messages[0]
    assert "pip install --no-build-isolation" in messages[0]


PYTHON = [REPO / name for name in ("alwa_d2", "scripts", "benchmarks")]
# The longer functions, with the reason.
LONG_FUNCTIONS: dict[str, str] = {}


def test_files_stay_small():
    limits = {"*.py": 300, "*.h": 200, "*.cpp": 200, "*.cu": 200, "*.cuh": 200}
    for pattern, limit in limits.items():
        for path in (p for folder in (*PYTHON, REPO / "csrc") for p in folder.rglob(pattern)):
            lines = len(path.read_text().splitlines())
            assert lines <= limit, f"{path.relative_to(REPO)}: {lines} lines, at most {limit}"
    for path in (REPO / "alwa_d2" / "cli").glob("*.py"):  # thin: the work is done further down
        assert len(path.read_text().splitlines()) <= 150, path.name
    assert len((REPO / "train_net.py").read_text().splitlines()) < 80


def test_functions_stay_small():
    """At most 40 lines without the docstring."""
    found = set()
    for path in (p for folder in PYTHON for p in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            if lines > 40:
                found.add(node.name)
                reason = LONG_FUNCTIONS.get(node.name)
                assert reason, (
                    f"{path.relative_to(REPO)}: {node.name} has {lines} lines, at most 40"
                )
    assert found == set(LONG_FUNCTIONS)


def test_every_command_is_documented():
    """In README.md or docs; and what the documents tell to run is there."""
    from alwa_d2.cli.main import COMMANDS

    documents = [REPO / "README.md", REPO / "CONTRIBUTING.md", *(REPO / "docs").glob("*.md")]
    text = "\n".join(path.read_text() for path in documents)
    named = set(re.findall(r"\balwa-d2 ([a-z][a-z-]*)", text))
    assert named == set(COMMANDS)
    for name in COMMANDS:
        assert f"alwa-d2 {name}" in (REPO / "docs" / "commands.md").read_text(), name
    assert "tools/" not in text
    makefile = (REPO / "Makefile").read_text()
    for script in re.findall(r"\b((?:scripts|benchmarks)/\w+\.(?:py|sh))", text + makefile):
        assert (REPO / script).exists(), script
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.M)) <= targets


def test_public_names():
    """Others' scripts call exactly these."""
    weighting = importlib.import_module("alwa_d2.weighting")
    for name in ("ALWA", "Fixed", "LossWeighter", "build_loss_weighter", "LOSS_WEIGHTER_REGISTRY"):
        assert hasattr(weighting, name)
    for name in (
        "box_loss", "dense_box_loss", "label_anchors", "loss_scales", "pad_ground_truth",
        "dense_focal_loss", "sigmoid_focal_loss", "LossStats", "reference",
    ):  # fmt: skip
        assert hasattr(layers, name)
