"""Runs tests on the emulated device, in a process of its own: one process holds one library.

    python tests/cuda_on_host/run.py VARIANT [pytest's arguments]

VARIANT is plain, races or sanitize; without tests among the arguments the op tests run.
"""

import os
import subprocess
import sys

from build import REPO, Build

OPS = ("box_loss", "dense_box_loss", "edges", "focal_loss", "gradient_ahead", "label_anchors")
OP_TESTS = [f"tests/test_{name}.py" for name in OPS]


def preloaded():
    """Python is built without AddressSanitizer, whose library has to come before all others."""
    compiler = os.environ.get("CXX", "g++")
    return ":".join(
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so.6")
    )


def environment(library, variant):
    added = {
        "ALWA_D2_CUDA_ON_HOST": str(library),
        "ALWA_D2_CUDA_ON_HOST_VARIANT": variant,
        "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    if variant == "sanitize":
        added["LD_PRELOAD"] = preloaded()
        # No search for leaks: CPython and PyTorch leave memory to the end of the process.
        added["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1"
        added["UBSAN_OPTIONS"] = "print_stacktrace=1:abort_on_error=1"
    return os.environ | added


def run(variant, *arguments, fault=None, **options):
    """The finished process of pytest."""
    library = Build(variant, fault).library()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "cuda_on_host.device",
        "-p",
        "no:cacheprovider",
    ]
    # pytest's own capture would swallow a sanitizer's report.
    command += ["-q", "--capture=sys", "-m", "not cpu_kernels", *arguments]
    if not any(".py" in argument for argument in arguments):
        command += OP_TESTS
    return subprocess.run(command, cwd=REPO, env=environment(library, variant), **options)


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]).returncode)
