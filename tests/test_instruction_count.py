"""How many instructions the focal loss executes per logit: speed, seen by no clock.

A count does not depend on how busy the machine is. It is taken of the loops alone, without PyTorch,
under valgrind, which runs the AVX2 version of them (it knows no AVX-512).
"""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO

REPEATS = 10
LOGITS = 7680

# Instructions per logit for K classes. Eight logits are computed at a time: about 48 instructions
# for value and gradient, 6 a logit. The rest is per anchor (its sum, its share of the statistics,
# looking at its label), and so the more, the fewer logits it has. Measured with GCC 12: 7.3, 9.1
# and 9.5; a loop that is no longer vectorised takes several times as many.
LIMITS = {80: 8.0, 20: 10.0, 3: 10.5}


@pytest.fixture(scope="module")
def program(tmp_path_factory, setup_py):
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind")
    if shutil.which("g++") is None:
        pytest.skip("needs GCC, whose vectorised versions are counted")
    version = subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True)
    if int(version.stdout.split(".")[0]) < 12:
        pytest.skip("needs GCC 12: before it the AVX2 version has no fused multiply-add")
    if platform.machine() != "x86_64" or "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs an x86-64 processor with AVX2, for which the limits are")
    file = tmp_path_factory.mktemp("count") / "focal_loops"
    sources = [REPO / "tests" / "focal_loops.cpp"]
    sources += [REPO / "csrc" / name for name in ("cpu/focal_loops.cpp", "cpu/sum_loops.cpp")]
    command = ["g++", "-std=c++17", *setup_py.CXX_FLAGS, f"-I{REPO / 'csrc'}", *sources, "-o", file]
    subprocess.run(command, check=True)
    return file


def instructions(program, repeats, classes):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [program, repeats, LOGITS // classes, classes]
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


@pytest.mark.parametrize("classes, limit", LIMITS.items())
def test_instructions_per_logit(program, classes, limit):
    # The difference of two runs is without start and end of the program.
    more, fewer = (instructions(program, n, classes) for n in (2 * REPEATS, REPEATS))
    per_logit = (more - fewer) / REPEATS / LOGITS
    assert 1 < per_logit < limit
