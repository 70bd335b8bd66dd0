"""Devices, dtypes with their tolerances, and inputs that several test files use."""

import importlib.util
import logging
import os
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

REPO = Path(__file__).resolve().parents[1]
BOX_KINDS = ("l1", "smooth_l1", "iou", "giou", "diou", "ciou")

# Relative and absolute tolerance against a float64 reference of the same (rounded) inputs. Values
# are computed in float32 for the half types and rounded once: a unit in the last place. The float32
# row allows for the differences of products of coordinates that IoU is made of.
TOLERANCE = {
    torch.float64: dict(rtol=1e-9, atol=1e-10),
    torch.float32: dict(rtol=2e-4, atol=2e-5),
    torch.float16: dict(rtol=2e-3, atol=2e-4),
    torch.bfloat16: dict(rtol=1e-2, atol=1e-3),
}

# On a GPU, networks that are compared shall round alike: no TF32, and sums always in one order.
torch.backends.cudnn.allow_tf32 = False
torch.backends.cudnn.deterministic = True

NEEDS_GPU = "needs a GPU"
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDS_GPU)),
]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    """Marks the tests that are skipped without a GPU, for `-m gpu`."""
    for item in items:
        if any(mark.kwargs.get("reason") == NEEDS_GPU for mark in item.iter_markers("skipif")):
            item.add_marker("gpu")


def has_cuda_kernels(device):
    """Whether a device's kernels are the CUDA ones: also a CPU's where they run on the host."""
    return device.type == "cuda" or "ALWA_D2_CUDA_ON_HOST" in os.environ


def assert_same_sums(first, second, device):
    """Two pairs (loss, statistics) of the same numbers in two layouts: the same bits on the CPU. The
    CUDA kernels add in an order that goes with the layout, an anchor's classes in float32."""
    for x, y in zip((first[0], first[1].values), (second[0], second[1].values), strict=True):
        if has_cuda_kernels(device):
            torch.testing.assert_close(x, y, rtol=1e-6, atol=0)
        else:
            assert torch.equal(x, y)


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=list(TOLERANCE), ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def setup_py():
    """setup.py as a module; its main() is not run."""
    spec = importlib.util.spec_from_file_location("alwa_d2_setup", REPO / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bccd():
    """The folder of the BCCD microscope images, where there is one."""
    folder = Path(os.environ.get("ALWA_D2_BCCD", REPO / ".." / "shared" / "data" / "bccd"))
    if not folder.is_dir():
        pytest.skip(f"no BCCD images in {folder} (set ALWA_D2_BCCD)")
    return folder.resolve()


@pytest.fixture
def catalogs():
    """Takes the data sets that a test registers out of Detectron2's catalogs again."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from alwa_d2.data.findings import Findings, note_left_out

    before = set(DatasetCatalog), set(MetadataCatalog)
    yield
    for catalog, names in zip((DatasetCatalog, MetadataCatalog), before):
        for name in set(catalog) - names:
            catalog.remove(name)
            note_left_out(name, Findings())


def assert_stock_loads(stock, model, folder, caplog):
    """A file of Detectron2's model loads into ours: every parameter, no key missing or unexpected."""
    from detectron2.checkpoint import DetectionCheckpointer

    torch.save({"model": stock.state_dict()}, folder / "model.pth")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with caplog.at_level(logging.INFO):
        DetectionCheckpointer(model).load(str(folder / "model.pth"))
    for name, parameter in stock.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))
    assert "not found in the checkpoint" not in caplog.text


def random_boxes(n, size=100.0, dtype=torch.float64, device="cpu"):
    """(n, 4) valid XYXY boxes of extents 1 to size / 2 in a field of `size` pixels."""
    corner = torch.rand(n, 2, dtype=torch.float64) * size / 2
    extent = 1 + torch.rand(n, 2, dtype=torch.float64) * (size / 2 - 1)
    return torch.cat([corner, corner + extent], dim=1).to(device=device, dtype=dtype)


# H, W of three levels of a dense head's output.
LEVEL_SHAPES = ((6, 5), (3, 3), (1, 2))


def flatten_levels(levels, values):
    """(N, R, values) in Detectron2's order of anchors, by its own function."""
    dense = pytest.importorskip(
        "detectron2.modeling.meta_arch.dense_detector", reason="needs Detectron2"
    )
    return torch.cat([dense.permute_to_N_HWA_K(level, values) for level in levels], 1)


def in_mode(arguments, mode):
    """The same arguments "real", or as tensors without numbers: "meta" or "fake"."""
    fake_mode = FakeTensorMode() if mode == "fake" else None

    def changed(x):
        if isinstance(x, torch.Tensor) and mode == "fake":
            return fake_mode.from_tensor(x)
        if isinstance(x, torch.Tensor) and mode == "meta":
            return x.detach().to("meta").requires_grad_(x.requires_grad)
        return [changed(item) for item in x] if isinstance(x, list) else x

    return {name: changed(value) for name, value in arguments.items()}


MODES = ("real", "meta", "fake")


def assert_same_bits_for_any_number_of_threads(results):
    """`results()` gives a list of tensors; also under use_deterministic_algorithms."""
    before = torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            runs.append(results())
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
