"""The CUDA kernels run without a GPU (cuda_on_host/README.md): the op tests pass on them as they are,
and notice what is planted."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

HERE = REPO / "tests" / "cuda_on_host"
sys.path.insert(0, str(HERE))
import faults  # noqa: E402

OP_TESTS = ["test_box_loss.py", "test_dense_box_loss.py", "test_focal_loss.py"]
OP_TESTS += ["test_edges.py", "test_gradient_ahead.py", "test_label_anchors.py"]
# What is marked as only the CPU's kernels': an error for a label out of range.
NOT_ON_THE_DEVICE = 2
AT_LEAST = 1167

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="switches stacks of x86-64 only"),
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs GCC"),
]


def build(variant, fault=None):
    from build import Build

    return Build(variant, fault).library()


def preloaded():
    """Python is built without AddressSanitizer, whose library has to come before all others."""
    names = ("libasan.so", "libstdc++.so.6")
    command = [os.environ.get("CXX", "g++"), "-print-file-name="]
    paths = [subprocess.check_output([command[0], command[1] + name], text=True) for name in names]
    return ":".join(path.strip() for path in paths)


def run(library, variant, *tests):
    """pytest in a process of its own, since one holds one library: (exit status, output)."""
    environment = os.environ | {
        "ALWA_D2_CUDA_ON_HOST": str(library),
        "PYTHONPATH": os.pathsep.join([str(REPO), str(HERE.parent)]),
        "OMP_NUM_THREADS": "1",
    }
    if variant == "sanitize":
        environment["LD_PRELOAD"] = preloaded()
        environment["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1"
        environment["UBSAN_OPTIONS"] = "print_stacktrace=1:abort_on_error=1"
    command = [sys.executable, "-m", "pytest", "-p", "cuda_on_host.device", "-p", "no:cacheprovider"]
    command += ["-x", "-q", "--capture=sys", "-m", "not cpu_kernels"]
    command += [f"tests/{name}" for name in tests]
    done = subprocess.run(
        command,
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    return done.returncode, done.stdout


def check_op_tests(variant):
    status, output = run(build(variant), variant, *OP_TESTS)
    assert status == 0, output[-6000:]
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|deselected)", output)}
    assert counts["passed"] >= AT_LEAST
    assert counts["deselected"] == NOT_ON_THE_DEVICE


def check_fault(fault):
    status, output = run(build(fault.build, fault), fault.build, fault.tests)
    assert status != 0, f"nobody has noticed: {fault.name}"
    assert re.search(fault.message, output), output[-6000:]


def test_op_tests_pass_on_the_device():
    check_op_tests("plain")


def test_a_planted_fault_is_noticed():
    check_fault(faults.FAULTS[0])


@pytest.mark.long
def test_op_tests_have_no_races():
    check_op_tests("races")


@pytest.mark.long
@pytest.mark.parametrize("fault", faults.FAULTS[1:], ids=lambda fault: fault.name)
def test_planted_faults_are_noticed(fault):
    check_fault(fault)
