"""The CUDA kernels run without a GPU (cuda_on_host/README.md): the op tests pass on them as they are,
and notice what is planted."""

import os
import platform
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPO

sys.path.insert(0, str(REPO / "tests" / "cuda_on_host"))
from faults import FAULTS  # noqa: E402

# Marked cpu_kernels: an error for a label out of range, where CUDA has a device assertion.
NOT_ON_THE_DEVICE = 2
AT_LEAST = 1360  # pass there

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="switches stacks of x86-64 only"),
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs GCC"),
]


def run(*arguments, **options):
    """(exit status, output) of a process of its own with the device."""
    from run import run  # needs a compiler

    done = run(*arguments, **options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def check_op_tests(variant):
    status, output = run(variant)
    assert status == 0, output[-6000:]
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|deselected)", output)}
    assert counts["passed"] >= AT_LEAST
    assert counts["deselected"] == NOT_ON_THE_DEVICE


def check_device(variant):
    checks = [f"tests/cuda_on_host/check_{name}.py" for name in ("device", "launches")]
    status, output = run(variant, *checks)
    assert status == 0, output[-6000:]


def check_fault(fault):
    status, output = run(fault.build, "-x", f"tests/{fault.tests}", fault=fault)
    assert status != 0, f"nobody has noticed: {fault.name}"
    assert re.search(fault.message, output), output[-6000:]


def test_op_tests_pass_on_the_device():
    check_op_tests("plain")


def test_the_device_itself():
    check_device("plain")


def test_a_planted_fault_is_noticed():
    check_fault(FAULTS[0])


@pytest.mark.long
def test_op_tests_have_no_races():
    check_op_tests("races")


@pytest.mark.long
def test_the_detector_of_races():
    check_device("races")


@pytest.mark.long
def test_shared_memory_has_an_end_for_address_sanitizer():
    test = "tests/cuda_on_host/check_device.py::test_shared_memory_has_an_end"
    status, output = run("sanitize", test)
    assert status != 0 and "AddressSanitizer: use-after-poison" in output, output[-6000:]


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS[1:], ids=lambda fault: fault.name)
def test_planted_faults_are_noticed(fault):
    check_fault(fault)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_faults_are_found_in_their_files(fault):
    text = (REPO / "csrc" / "cuda" / fault.file).read_text()
    assert fault.change(text) != text


def test_every_kernel_has_its_faults():
    """Of a kernel without a row in the table nobody would know whether its tests can fail."""
    kernels = set()
    for path in (REPO / "csrc" / "cuda").iterdir():
        kernels |= set(re.findall(r"__global__ [^;{]*?\b(\w+_kernel)\(", path.read_text()))
    assert kernels == {fault.kernel for fault in FAULTS}
    for kernel in kernels:
        kinds = {fault.kind for fault in FAULTS if fault.kernel == kernel}
        assert kinds >= {"tail", "stride"} and kinds & {"race", "barrier", "divergence"}, kernel
