"""The emulated device itself: what it refuses, and what it lets pass (probe.cu). Not collected by
name: test_cuda_on_host.py runs it in a process that has the device."""

import os

import pytest
import torch
from cuda_on_host import device

VARIANT = os.environ["ALWA_D2_CUDA_ON_HOST_VARIANT"]
FINE = ["functions", "templates", "aligned", "shared memory behind __syncwarp"]
FINE += ["blocks add to one number", "threads write bytes side by side"]
ERRORS = {
    "barrier after some have ended": "threads have ended before a barrier",
    "barriers of two places": "different places: __syncthreads (probe.cu:",
    "a warp waits for lanes at a barrier": "a deadlock:",
    "a shuffle from a lane that has ended": "from a lane that takes no part",
    "a mask without the lane": "a mask without the lane itself",
    "misaligned": "a misaligned address (probe.cu:",
    "an assertion": "device assertion: threadIdx.x < 31 (probe.cu:",
    "too many parameters": "4097 bytes of parameters: run_kernel",
    "too high a grid": "no such launch: run_kernel, grid 1 x 65536 x 1",
    "no block": "no such launch",
    "too many threads": "no such launch",
    "no check": "C10_CUDA_KERNEL_LAUNCH_CHECK is missing",
    "much shared memory": "more shared memory than a block has",
}
if VARIANT == "sanitize":
    del ERRORS["misaligned"]  # whose report ends the process
RACES = {
    "shared memory without a barrier": "a race in shared memory",
    "__syncwarp between two warps": "a race in shared memory",
    "a vote is no barrier": "a race in shared memory",
    "blocks write one number": "a race in global memory",
    "a block reads what another has written": "a race in global memory",
    "an atomic and a plain one": "a race in global memory",
    "a wide load meets a narrow store": "a race in global memory",
}


@pytest.mark.parametrize("name", FINE)
@pytest.mark.parametrize("seed", range(1, 6))
def test_lets_pass(name, seed):
    device.LIBRARY.cuda_on_host_seed(seed)
    assert device.probe(name) == ""


@pytest.mark.parametrize("name, message", (ERRORS | (RACES if VARIANT == "races" else {})).items())
def test_refuses(name, message):
    assert message in device.probe(name)
    assert device.probe("functions") == ""  # and goes on


@pytest.mark.skipif(VARIANT == "plain", reason="seen by the other builds")
def test_shared_memory_has_an_end():
    """AddressSanitizer ends the process (test_cuda_on_host.py)."""
    assert "shared memory out of bounds" in device.probe("shared memory beyond its end")


def test_records_kernels_and_the_operators_inside_of_ops():
    logits, labels = torch.randn(2, 30, 3), torch.randint(-1, 4, (2, 30)).t().contiguous().t()
    with device.record() as recorded:
        torch.ops.alwa_d2.sigmoid_focal_loss([logits], labels, 0.25, 2.0, None, 1.0)
    events = recorded.events
    op = events.index(("operator", "alwa_d2::sigmoid_focal_loss"))
    assert events.index(("operator", "aten::contiguous")) > op
    assert recorded.kernels and all(name.endswith("_kernel") for name in recorded.kernels)
    # The labels are copied, for they are not contiguous.
    assert set(recorded.launches) == {"aten::copy_", *recorded.kernels}
