"""The ops for tensors without numbers (csrc/meta.cpp): sizes that are symbols, devices that are not
there, and refusals in the same words as with numbers."""

import pytest
import torch
from conftest import random_boxes
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from alwa_d2.layers import (
    LossStats,
    box_loss,
    dense_box_loss,
    dense_focal_loss,
    label_anchors,
    loss_scales,
)

CLASSES = 3


def boxes(*shape):
    count = torch.Size(shape).numel()
    return random_boxes(count).float().reshape(*shape, 4)


def labels(images, anchors):
    return torch.arange(images * anchors).reshape(images, anchors) % (CLASSES + 2) - 1


# Each makes inputs of a size that may change: (function of tensors, tensors with gradients, others).


def pairs(n):
    return lambda p, t: box_loss(p, t, "giou", "sum"), [boxes(n)], [boxes(n)]


def pairs_one_by_one(n):
    return lambda p, t: box_loss(p, t, "ciou"), [boxes(n)], [boxes(n)]


def dense_flat(n):
    def loss(deltas, anchors, gt_boxes, labels):
        return dense_box_loss(anchors, deltas, gt_boxes, labels, "giou", num_classes=CLASSES)[0]

    return loss, [torch.randn(2, n, 4)], [boxes(n), boxes(2, n), labels(2, n)]


def dense_levels(n):
    def loss(p3, p4, anchors, gt_boxes, mask, scale):
        loss, stats = dense_box_loss(anchors, [p3, p4], gt_boxes, mask, "smooth_l1", scale=scale)
        return loss + stats.count.float()

    anchors = 2 * (n * 4 + n)
    mask = labels(3, anchors) > 0
    scale = torch.tensor(0.5, dtype=torch.float64)
    deltas = [torch.randn(3, 8, n, 4), torch.randn(3, 8, n, 1)]
    return loss, deltas, [boxes(anchors), boxes(3, anchors), mask, scale]


def focal_flat(n):
    return lambda x, y: dense_focal_loss(x, y)[0], [torch.randn(n, n + 1, CLASSES)], [labels(n, n + 1)]  # fmt: skip


def focal_levels(n):
    """Channels last, and one level that is every other channel of a larger tensor."""

    def loss(p3, p4, y):
        return dense_focal_loss([p3, p4[:, ::2]], y, gamma=1.5, scale=0.1)[0]

    p3 = torch.randn(n, 2 * CLASSES, 4, n).to(memory_format=torch.channels_last)
    return loss, [p3, torch.randn(n, 4 * CLASSES, 2, n)], [labels(n, 2 * (4 * n + 2 * n))]


def anchors_and_count(n):
    def labelled(anchors, gt_boxes, gt_classes):
        found = label_anchors(anchors, [gt_boxes, gt_boxes[:2]], [gt_classes, gt_classes[:2]], background=9)  # fmt: skip
        normalizer = torch.full((), 100.0, dtype=torch.float64)
        return [*found, loss_scales(found[2], normalizer)]

    return labelled, [], [boxes(10 * n), boxes(n), torch.arange(n)]


CASES = [
    pairs, pairs_one_by_one, dense_flat, dense_levels, focal_flat, focal_levels, anchors_and_count
]  # fmt: skip


def outputs_and_gradients(function, leaves, others):
    leaves = [x.detach().requires_grad_() for x in leaves]
    out = function(*leaves, *others)
    outputs = list(out) if isinstance(out, list) else [out]
    return outputs + (list(torch.autograd.grad(out.sum(), leaves)) if leaves else [])


def assert_equal(ours, expected):
    for x, y in zip(ours, expected, strict=True):
        assert torch.equal(x, y) and x.stride() == y.stride() and x.dtype == y.dtype


@pytest.mark.parametrize("case", CASES)
def test_one_compiled_program_serves_all_sizes(case):
    torch._dynamo.reset()
    counter, compiled = CompileCounterWithBackend("aot_eager"), None
    function = torch.compile(case(5)[0], dynamic=True, fullgraph=True, backend=counter)
    for n in (5, 6, 9):
        _, leaves, others = case(n)
        expected = outputs_and_gradients(case(n)[0], leaves, others)
        assert_equal(outputs_and_gradients(function, leaves, others), expected)
        compiled = counter.frame_count if n == 5 else compiled
    assert counter.frame_count == compiled > 0


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", [pairs, dense_flat])
def test_exported_with_a_size_left_open(case, strict):
    function, leaves, others = case(5)

    class Loss(nn.Module):
        def forward(self, inputs):
            return function(*inputs)

    n = torch.export.Dim("n", min=2)
    sizes = [{i: n for i, size in enumerate(x.shape) if size == 5} for x in leaves + others]
    dynamic = {"inputs": sizes}
    exported = torch.export.export(
        Loss(), (leaves + others,), dynamic_shapes=dynamic, strict=strict
    )
    for size in (5, 8):
        _, leaves, others = case(size)
        assert torch.equal(exported.module()(leaves + others), function(*leaves, *others))


@pytest.mark.parametrize("case", CASES)
def test_traced_with_symbols(case):
    function, leaves, others = case(5)
    graph = make_fx(function, tracing_mode="symbolic")(*leaves, *others)
    assert any("alwa_d2" in str(node.target) for node in graph.graph.nodes)
    _, leaves, others = case(7)
    ours, expected = graph(*leaves, *others), function(*leaves, *others)
    both = (ours, expected) if isinstance(expected, list) else ([ours], [expected])
    assert all(torch.equal(x, y) for x, y in zip(*both, strict=True))


@pytest.mark.parametrize("strict", [True, False])
def test_statistics_are_exported_saved_and_loaded(strict, tmp_path):
    """A program returns LossStats as they are, and takes them."""

    class Loss(nn.Module):
        def forward(self, logits, labels, other):
            loss, stats = dense_focal_loss(logits, labels)
            return {"loss": loss, "stats": stats, "both": stats.sum + other.sum}

    function, (logits,), (y,) = focal_flat(5)
    _, other = dense_focal_loss(logits, y)
    exported = torch.export.export(Loss(), (logits, y, other), strict=strict)
    torch.export.save(exported, tmp_path / "loss.pt2")
    loaded = torch.export.load(tmp_path / "loss.pt2")
    logits = logits * 2
    loss, stats = dense_focal_loss(logits, y)
    for program in (exported, loaded):
        found = program.module()(logits, y, other)
        assert isinstance(found["stats"], LossStats)
        assert torch.equal(found["loss"], loss)
        assert torch.equal(found["stats"].values, stats.values)
        assert torch.equal(found["both"], stats.sum + other.sum)


def test_statistics_are_a_tree_with_one_leaf():
    _, stats = dense_focal_loss(torch.zeros(1, 2, 3), torch.tensor([[0, 3]]))
    leaves, spec = pytree.tree_flatten({"stats": stats})
    assert len(leaves) == 1 and leaves[0] is stats.values
    assert "alwa_d2.layers.LossStats" in pytree.treespec_dumps(spec)
    again = pytree.tree_unflatten(leaves, pytree.treespec_loads(pytree.treespec_dumps(spec)))
    assert isinstance(again["stats"], LossStats) and again["stats"].values is stats.values


def test_statistics_leave_a_compiled_function():
    def both(logits, labels):
        return dense_focal_loss(logits, labels)

    _, (logits,), (y,) = focal_flat(5)
    _, stats = torch.compile(both, fullgraph=True, backend="aot_eager")(logits, y)
    assert torch.equal(stats.values, both(logits, y)[1].values)


def test_sizes_that_depend_on_values():
    """The foreground of two masks: whether they have as many is checked when the program runs."""

    def loss(pred, target, mask, other):
        return box_loss(pred[mask], target[other], "diou", "sum")

    pred, target, mask = boxes(6), boxes(6), torch.tensor([True, False, True, True, False, False])
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(pred, target, mask, ~mask), loss(pred, target, mask, ~mask))
        mask[0] = False
        with pytest.raises((RuntimeError, ValueError)):
            compiled(pred, target, mask, ~mask)


# --- Devices --------------------------------------------------------------------------------------


def fake_calls(device, other):
    """Each op's outputs for fake tensors, one of which is on `other`."""

    def on(x, device=device):
        return torch.empty(x.shape, dtype=x.dtype, device=device)

    anchors, y = on(boxes(6)), on(labels(2, 6))
    scale, weight = (on(torch.zeros((), dtype=torch.float64), other) for _ in range(2))
    normalizer, count = on(torch.zeros((), dtype=torch.float64)), on(torch.tensor(3))
    deltas, gt_boxes = on(torch.zeros(2, 6, 4)), on(boxes(2, 6))
    return {
        "target": lambda: box_loss(anchors, on(boxes(6), other), "iou"),
        "gt_boxes": lambda: dense_box_loss(
            anchors, deltas, on(boxes(2, 6), other), y, "iou", num_classes=3
        ),
        "scale": lambda: dense_box_loss(
            anchors, deltas, gt_boxes, y, "iou", num_classes=3, scale=scale
        ),
        "logits": lambda: dense_focal_loss(on(torch.zeros(2, 6, 3), other), y),
        "scale ": lambda: dense_focal_loss(on(torch.zeros(2, 6, 3)), y, scale=scale),
        "weights": lambda: loss_scales(count, normalizer, [weight]),
        "num_foreground": lambda: loss_scales(on(torch.tensor(3), other), normalizer),
    }


NAMES = list(fake_calls("cpu", "cpu"))


def tensors_in(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [x if isinstance(x, torch.Tensor) else x.values for x in result]


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:1", "meta"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_on_the_inputs_device(name, device):
    with FakeTensorMode(allow_non_fake_inputs=True):
        for x in tensors_in(fake_calls(device, device)[name]()):
            assert x.device == torch.device(device)


@pytest.mark.parametrize("name", NAMES)
def test_two_devices_are_refused(name):
    """A number on the CPU too, which PyTorch's own operators take among tensors of a GPU."""
    with FakeTensorMode(), pytest.raises(
        ValueError, match=rf"{name.strip()}: expected device cuda:0 as \w+, got cpu"
    ):  # fmt: skip
        fake_calls("cuda:0", "cpu")[name]()


def test_labels_outputs_are_on_the_anchors_device():
    with FakeTensorMode():
        inputs = [torch.empty(6, 4, device="cuda"), [torch.empty(2, 4, device="cuda")]]
        for x in label_anchors(*inputs, background=1, foreground=0):
            assert x.device == torch.device("cuda:0")
        with pytest.raises(RuntimeError, match="device"):
            label_anchors(inputs[0], [torch.empty(2, 4)], background=1, foreground=0)
