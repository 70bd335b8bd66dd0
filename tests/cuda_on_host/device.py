"""The emulated device in a pytest process: `python -m pytest -p cuda_on_host.device`.

ALWA_D2_CUDA_ON_HOST is the library that build.py has built. It stands in the place of alwa_d2._C, so
that the kernels for tensors on the CPU are the CUDA ones.
"""

import contextlib
import ctypes
import importlib.util
import os
import sys
import zlib

import pytest
import torch

# Of PyTorch's operators those that start nothing on a device: they make or describe a tensor, or
# consist of others that are recorded too.
LAUNCH_NOTHING = {
    f"aten::{name}"
    for name in (
        "alias as_strided clone contiguous detach empty empty_like empty_strided expand flatten "
        "narrow new_empty new_zeros ones permute reshape resize_ result_type select slice split "
        "squeeze t to _to_copy transpose unbind unflatten unsqueeze view view_as _unsafe_view "
        "zeros zeros_like resolve_conj resolve_neg lift_fresh"
    ).split()
}


def load(path):
    # PyTorch is loaded: its libraries are found.
    spec = importlib.util.spec_from_file_location("alwa_d2._C", path)
    sys.modules["alwa_d2._C"] = importlib.util.module_from_spec(spec)
    library = ctypes.CDLL(path)
    library.cuda_on_host_seed.argtypes = [ctypes.c_uint64]
    library.cuda_on_host_recorded.restype = ctypes.c_char_p
    library.cuda_on_host_probe.argtypes = [ctypes.c_char_p]
    library.cuda_on_host_probe.restype = ctypes.c_char_p
    return library


LIBRARY = load(os.environ["ALWA_D2_CUDA_ON_HOST"])
torch.set_num_threads(1)


class Recorded:
    """What the device was told to do, in its order: ("kernel", name), ("memset", "") and
    ("operator", name) for each of PyTorch's, also those called inside of ops."""

    events = ()

    def names(self, kind):
        return [name for event, name in self.events if event == kind]

    @property
    def kernels(self):
        return self.names("kernel")

    @property
    def launches(self):
        """Names of all that would start on a GPU: kernels, operators, and "memset", which
        aten::zero_ is there."""
        return [
            "memset" if name in ("", "aten::zero_") else name
            for kind, name in self.events
            if kind != "operator" or (name.startswith("aten::") and name not in LAUNCH_NOTHING)
        ]


@contextlib.contextmanager
def record():
    recorded = Recorded()
    LIBRARY.cuda_on_host_record(1)
    try:
        yield recorded
    finally:
        LIBRARY.cuda_on_host_record(0)
        lines = LIBRARY.cuda_on_host_recorded().decode().splitlines()
        recorded.events = [tuple(f"{line} ".split(" ")[:2]) for line in lines]


def probe(name):
    """The message of the error that a launch of probe.cu ends with, empty where it does not."""
    return LIBRARY.cuda_on_host_probe(name.encode()).decode()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Each test has an order of blocks and threads of its own, the same one whenever it runs."""
    LIBRARY.cuda_on_host_seed(zlib.crc32(item.nodeid.encode()) + 1)
