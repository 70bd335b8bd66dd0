"""loss_scales: worked values, Detectron2's moving average, the bits of what it replaces."""

import math

import pytest
import torch
from conftest import MODES, in_mode

from alwa_d2.layers import loss_scales, reference

OPS = torch.ops.alwa_d2


def scalar(value, device="cpu", dtype=torch.float64):
    return torch.tensor(value, device=device, dtype=dtype)


def inputs(device="cpu", count=30, start=100.0, weights=(0.5, 2.0)):
    return dict(
        num_foreground=scalar(count, device, torch.int64),
        normalizer=scalar(start, device),
        weights=[scalar(weight, device) for weight in weights],
    )


@pytest.mark.parametrize("function", [loss_scales, reference.loss_scales])
def test_worked_example(function, device):
    """0.5 * 100 + 0.5 * 30 = 65; weights 0.5 and 2 over it, and 1 over it."""
    arguments = inputs(device)
    scales = function(**arguments, momentum=0.5)
    assert scales.dtype == torch.float64
    assert arguments["normalizer"].item() == 65
    assert scales.tolist() == [0.5 / 65, 2 / 65, 1 / 65]
    scales = function(**arguments, momentum=0.5, update=False)
    assert arguments["normalizer"].item() == 65
    assert scales.tolist() == [0.5 / 65, 2 / 65, 1 / 65]


def test_without_foreground_the_average_moves_towards_1(device):
    arguments = inputs(device, count=0, start=2.0, weights=())
    assert loss_scales(**arguments, momentum=0.5).tolist() == [1 / 1.5]


def test_a_mean_over_processes_is_a_fraction(device):
    arguments = inputs(device) | dict(num_foreground=scalar(2.5, device))
    loss_scales(**arguments, momentum=0.0)
    assert arguments["normalizer"].item() == 2.5


def test_equals_the_operators_it_replaces_to_the_bit(device):
    """Product and sum of the average rounded together, as add_ does with alpha."""
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("PyTorch rounds twice on a processor without fused multiply-add")
    normalizer, expected = scalar(100.0, device), scalar(100.0, device)
    for _ in range(300):
        count = torch.randint(0, 3000, (), device=device)
        weights = list(torch.rand(2, dtype=torch.float64, device=device).unbind())
        scales = loss_scales(count, normalizer, weights)
        assert torch.equal(scales, reference.loss_scales(count, expected, weights))
        assert torch.equal(normalizer, expected)


def test_equals_detectron2s_average():
    dense = pytest.importorskip(
        "detectron2.modeling.meta_arch.dense_detector", reason="needs Detectron2"
    )
    stock = torch.nn.Module()
    normalizer = scalar(100.0)
    for count in (0, 1, 700, 3, 3):
        loss_scales(torch.tensor(count), normalizer)
        expected = dense.DenseDetector._ema_update(stock, "normalizer", max(count, 1), 100)
        assert normalizer.item() == pytest.approx(expected, rel=1e-15)


def test_later_updates_leave_what_was_returned(device):
    arguments = inputs(device)
    scales = loss_scales(**arguments)
    before = scales.clone()
    loss_scales(**arguments)
    assert torch.equal(scales, before)


# --- As an op -------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", [True, False])
@pytest.mark.parametrize("weights", [(), (0.5, 2.0)])
def test_opcheck(update, weights, device):
    arguments = inputs(device, weights=weights)
    args = (*arguments.values(), 0.9, update)
    torch.library.opcheck(OPS.loss_scales.default, args)


def test_the_write_is_counted():
    """A backward that needs the old value is refused instead of wrong."""
    normalizer = scalar(100.0)
    x = scalar(2.0).requires_grad_()
    loss = x * normalizer
    loss_scales(torch.tensor(30), normalizer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_compiles_without_graph_breaks():
    normalizers = [scalar(100.0), scalar(100.0)]

    def scale(count, normalizer, weight):
        return loss_scales(count, normalizer, [weight]) * 2

    functions = [scale, torch.compile(scale, fullgraph=True, backend="aot_eager")]
    for count in (3, 70):
        found = [
            function(torch.tensor(count), normalizer, scalar(0.5))
            for function, normalizer in zip(functions, normalizers)
        ]
        assert torch.equal(*found) and torch.equal(*normalizers)


FLOAT32 = torch.float32


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(num_foreground=torch.ones(1, dtype=torch.int64)), ValueError, r"num_foreground: expected shape \[\], got \[1\]"),
        (dict(num_foreground=scalar(1, dtype=torch.int32)), TypeError, "num_foreground: expected int64 or float64, got int32"),
        (dict(normalizer=torch.ones(1, dtype=torch.float64)), ValueError, r"normalizer: expected shape \[\], got \[1\]"),
        (dict(normalizer=scalar(1.0, dtype=FLOAT32)), TypeError, "normalizer: expected float64, got float32"),
        (dict(weights=[torch.ones(2, dtype=torch.float64)]), ValueError, r"weights: expected shape \[\], got \[2\]"),
        (dict(weights=[scalar(1.0, dtype=FLOAT32)]), TypeError, "weights: expected float64, got float32"),
        (dict(momentum=1.5), ValueError, "momentum: expected 0 to 1, got 1.5"),
        (dict(momentum=math.nan), ValueError, "momentum: expected 0 to 1, got nan"),
        (dict(weights=[scalar(1.0)] * 17), ValueError, "weights: expected at most 16 tensors, got 17"),
        (dict(weights=[scalar(1.0).requires_grad_()]), ValueError, "weights: expected detached tensors, got one that requires grad"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_refusals(change, error, words, mode):
    """In the same words for tensors without numbers."""
    loss_scales(**in_mode(inputs(), mode))
    arguments = inputs() | change
    with pytest.raises(error, match=words):
        loss_scales(**in_mode(arguments, mode))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_is_not_waited_for():
    arguments = inputs("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_scales(**arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["num_foreground", "weights"])
def test_cuda_and_cpu_together_are_refused(name):
    arguments = inputs("cuda") | {name: inputs()[name]}
    with pytest.raises(ValueError, match=f"{name}: expected device cuda:0 as normalizer, got cpu"):
        loss_scales(**arguments)
