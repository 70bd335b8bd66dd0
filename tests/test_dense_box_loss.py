"""dense_box_loss: parity with the reference and Detectron2, both input forms, bad input."""

import math

import pytest
import torch
from conftest import (
    BOX_KINDS,
    LEVEL_SHAPES,
    MODES,
    TOLERANCE,
    assert_same_bits_for_any_number_of_threads,
    assert_same_sums,
    flatten_levels,
    in_mode,
    random_boxes,
)

from alwa_d2.layers import dense_box_loss, reference

OPS = torch.ops.alwa_d2

NUM_ANCHORS = 82  # of the three levels, two anchors a position


def dense_inputs(device="cpu", dtype=torch.float64, images=3, foreground=0.3):
    """Anchors, deltas as levels (N, A * 4, H, W), matched boxes and mask, as a dense head has them."""
    levels = [torch.randn(images, 2 * 4, h, w, dtype=torch.float64) * 0.5 for h, w in LEVEL_SHAPES]
    fg_mask = torch.rand(images, NUM_ANCHORS) < foreground
    gt_boxes = random_boxes(images * NUM_ANCHORS).view(images, NUM_ANCHORS, 4)
    box_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    return (
        random_boxes(NUM_ANCHORS).to(device, box_dtype),
        [level.to(device, dtype).requires_grad_() for level in levels],
        gt_boxes.to(device, box_dtype),
        fg_mask.to(device),
    )


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_parity(kind, dtype, device):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, dtype)
    options = dict(box_weights=(2.0, 1.5, 1.0, 0.5), beta=0.3, eps=1e-6, scale=0.4)
    exact = [level.detach().double().cpu().requires_grad_() for level in deltas]
    expected, expected_stats = reference.dense_box_loss(
        anchors.double().cpu(), exact, gt_boxes.double().cpu(), fg_mask.cpu(), kind, **options
    )
    loss, stats = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, kind, **options)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(loss.cpu().double(), expected, **TOLERANCE[dtype])
    torch.testing.assert_close(stats.values.cpu(), expected_stats.values, **TOLERANCE[dtype])
    assert not stats.values.requires_grad and stats.values.dtype == torch.float64
    grads = torch.autograd.grad(loss, deltas)
    for grad, other in zip(grads, torch.autograd.grad(expected, exact), strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.cpu().double(), other, **TOLERANCE[dtype])


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_equals_detectron2(kind):
    regression = pytest.importorskip(
        "detectron2.modeling.box_regression", reason="needs Detectron2"
    )
    anchors, levels, gt_boxes, fg_mask = dense_inputs(dtype=torch.float32)
    deltas = (
        flatten_levels(levels, 4).detach() * 4
    ).requires_grad_()  # some beyond the scale clamp
    assert (deltas > reference.SCALE_CLAMP).any()
    weights = (2.0, 1.5, 1.0, 0.5)
    expected = regression._dense_box_regression_loss(
        [anchors],
        regression.Box2BoxTransform(weights),
        [deltas],
        list(gt_boxes),
        fg_mask,
        kind,
        0.3,
    )
    loss, _ = dense_box_loss(
        anchors, deltas, gt_boxes, fg_mask, kind, box_weights=weights, beta=0.3
    )
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(x, deltas)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_levels_equal_the_flat_form(memory_format, device):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, torch.float32)
    deltas = [x.detach().contiguous(memory_format=memory_format).requires_grad_() for x in deltas]
    loss, stats = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, "ciou")
    flat = flatten_levels(deltas, 4).detach().requires_grad_()
    flat_loss, flat_stats = dense_box_loss(anchors, flat, gt_boxes, fg_mask, "ciou")
    assert_same_sums((loss, stats), (flat_loss, flat_stats), device)
    grads = torch.autograd.grad(loss, deltas)
    assert all(g.is_contiguous(memory_format=memory_format) for g in grads)
    assert torch.equal(flatten_levels(grads, 4), torch.autograd.grad(flat_loss, flat)[0])


@pytest.mark.parametrize("kind", ["smooth_l1", "iou", "giou", "diou"])
def test_gradcheck(kind, device):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, images=1)
    scale = torch.tensor(0.7, device=device, dtype=torch.float64)

    def loss(*levels):
        return dense_box_loss(
            anchors,
            levels,
            gt_boxes,
            fg_mask,
            kind,
            beta=0.5,
            box_weights=(2, 2, 1, 1),
            scale=scale,
        )[0]

    assert torch.autograd.gradcheck(loss, deltas)


def test_scale_multiplies_loss_and_gradient_but_not_the_statistics(device):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device)
    plain, stats = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, "giou")
    for scale in (
        0.25,
        torch.tensor(0.25, device=device),
        torch.tensor(0.25, device=device).double(),
    ):
        loss, same = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, "giou", scale=scale)
        torch.testing.assert_close(loss, 0.25 * plain)
        assert torch.equal(same.values, stats.values)
        grads = torch.autograd.grad(loss, deltas)
        for grad, other in zip(
            grads, torch.autograd.grad(plain, deltas, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(grad, 0.25 * other)


@pytest.mark.parametrize("images, foreground", [(0, 0.5), (2, 0.0)])
@pytest.mark.parametrize("kind", BOX_KINDS)
def test_no_foreground(kind, images, foreground, device):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, images=images, foreground=foreground)
    loss, stats = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, kind)
    assert loss == 0
    assert stats.values.tolist() == [0, 0, 0, math.inf, -math.inf]
    assert stats.mean == 0 and stats.std == 0
    for grad, level in zip(torch.autograd.grad(loss, deltas), deltas, strict=True):
        assert grad.shape == level.shape and not grad.any()


def test_background_is_not_looked_at(device):
    """NaN in background deltas and boxes, as labels leave them undefined there, reaches nothing."""
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device)
    flat = flatten_levels(deltas, 4).detach()
    expected, _ = dense_box_loss(anchors, flat, gt_boxes, fg_mask, "ciou")
    flat[~fg_mask] = torch.nan
    gt_boxes[~fg_mask] = torch.nan
    flat.requires_grad_()
    loss, _ = dense_box_loss(anchors, flat, gt_boxes, fg_mask, "ciou")
    assert torch.equal(loss, expected)
    (grad,) = torch.autograd.grad(loss, flat)
    assert grad.isfinite().all() and not grad[~fg_mask].any()


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_zero_area_ground_truth_stays_finite(kind):
    """Two such boxes are in the BCCD annotations; log(0) must not reach l1."""
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(dtype=torch.float32)
    gt_boxes[..., 2] = gt_boxes[..., 0]
    loss, _ = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, kind)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, deltas))


@pytest.mark.parametrize("kind", BOX_KINDS)
@pytest.mark.parametrize("size", [0.0, 3.0, 30.0, 300.0])
def test_extreme_deltas_stay_finite(kind, size, dtype, device):
    """Far beyond the scale clamp and far below, where the decoded box has no extent left."""
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, dtype)
    deltas = [(size * level.detach().sign()).requires_grad_() for level in deltas]
    loss, stats = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, kind, scale=1e-3)
    assert loss.isfinite() and stats.values.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, deltas))


@pytest.mark.parametrize("form", ["flat", "contiguous", "channels last"])
def test_labels_equal_the_mask_to_the_bit(dtype, device, form):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, dtype)
    if form == "flat":
        deltas = [flatten_levels(deltas, 4).detach().requires_grad_()]
    elif form == "channels last":
        deltas = [
            x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            for x in deltas
        ]
    foreground = torch.randint(0, 5, fg_mask.shape, device=device)
    others = torch.tensor([-1, 5, 10, -7, 2**63 - 1, -(2**63)], device=device)
    other = others[torch.randint(0, len(others), fg_mask.shape, device=device)]
    labels = torch.where(fg_mask, foreground, other)
    results = []
    for kwargs in (dict(labels=fg_mask), dict(labels=labels, num_classes=5)):
        loss, stats = dense_box_loss(anchors, deltas, gt_boxes, kind="ciou", **kwargs)
        results.append([loss, stats.values, *torch.autograd.grad(loss, deltas)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert results[0][1][0] == fg_mask.sum() > 0


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("anchors_per_image", [1, 63, 64, 65, 1023, 1024, 1025, 40000])
def test_every_foreground_anchor_is_found(anchors_per_image, with_labels):
    """Wherever it is among those that are looked at together, and in a batch of several pieces."""
    n = 2 * anchors_per_image
    for places in ([0], [n - 1], torch.randperm(n)[: n // 3 + 1].tolist(), list(range(n))):
        mask = torch.zeros(n, dtype=torch.bool)
        mask[places] = True
        labels = dict(labels=mask.view(2, -1))
        if with_labels:
            labels = dict(labels=torch.where(mask, 0, 1).view(2, -1), num_classes=1)
        deltas = torch.full((2, anchors_per_image, 4), 0.5, requires_grad=True)
        anchors = torch.tensor([0.0, 0.0, 2.0, 2.0]).expand(anchors_per_image, 4)
        boxes = anchors.expand(2, -1, -1)
        loss, stats = dense_box_loss(anchors, deltas, boxes, kind="l1", **labels)
        assert stats.count == len(places) and loss == 2.0 * len(places)
        (grad,) = torch.autograd.grad(loss, deltas)
        assert torch.equal(grad.view(n, 4), mask[:, None].expand(n, 4).float())


# --- As an op -------------------------------------------------------------------------------------


def test_levels_without_channels_have_no_anchors(device):
    deltas = [torch.zeros(2, 0, 4, 4, device=device).requires_grad_()]
    mask = torch.zeros(2, 0, dtype=torch.bool, device=device)
    boxes = torch.zeros(2, 0, 4, device=device)
    loss, stats = dense_box_loss(boxes[0], deltas, boxes, mask, "giou")
    assert float(loss) == 0 and float(stats.count) == 0
    assert torch.autograd.grad(loss, deltas)[0].shape == (2, 0, 4, 4)


def test_opcheck(device):
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device, torch.float32)
    one = torch.ones((), device=device)
    scale = torch.tensor(0.5, device=device, dtype=torch.float64)
    for kind in BOX_KINDS:
        for scales in ((scale,), (None, 0.5)):
            args = (gt_boxes, fg_mask, None, kind, [1.0, 1.0, 1.0, 1.0], 0.5, 1e-7, *scales)
            torch.library.opcheck(OPS.dense_box_loss.default, (anchors, deltas, *args))
            detached = [level.detach() for level in deltas]
            op = OPS.dense_box_loss_backward.default
            torch.library.opcheck(op, (one, anchors, detached, *args))


def test_bitwise_repeatable_for_any_number_of_threads():
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(dtype=torch.float32, images=2000)

    def results():
        loss, stats = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, "ciou")
        return [loss, stats.values, *torch.autograd.grad(loss, deltas)]

    assert_same_bits_for_any_number_of_threads(results)


def test_never_twice_differentiable():
    anchors, deltas, gt_boxes, fg_mask = dense_inputs()
    loss, _ = dense_box_loss(anchors, deltas, gt_boxes, fg_mask, "giou")
    (grad,) = torch.autograd.grad(loss, deltas[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once, not twice"):
        grad.sum().backward()


def test_compiles_without_graph_breaks():
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(dtype=torch.float32)

    def total(levels):
        loss, stats = dense_box_loss(anchors, levels, gt_boxes, fg_mask, "giou", scale=0.5)
        return loss, stats.mean

    loss, mean = torch.compile(total, fullgraph=True, backend="aot_eager")(deltas)
    expected, expected_mean = total(deltas)
    assert torch.equal(loss, expected) and torch.equal(mean, expected_mean)
    grads = (torch.autograd.grad(x, deltas) for x in (loss, expected))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "ciou"])
def test_flat_levels(kind, device):
    """A list of (N, HWA, 4), which Detectron2's models make: the levels' own loss and gradient."""
    anchors, deltas, gt_boxes, fg_mask = dense_inputs(device)
    flat = [flatten_levels([level], 4).detach().requires_grad_() for level in deltas]
    loss, stats = dense_box_loss(anchors, flat, gt_boxes, fg_mask, kind)
    assert_same_sums(
        (loss, stats), dense_box_loss(anchors, deltas, gt_boxes, fg_mask, kind), device
    )
    expected, _ = reference.dense_box_loss(anchors, flat, gt_boxes, fg_mask, kind)
    torch.testing.assert_close(loss, expected)
    for ours, other in zip(torch.autograd.grad(loss, flat), torch.autograd.grad(expected, flat)):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize("function", [dense_box_loss, reference.dense_box_loss])
def test_without_beta_smooth_l1_is_pytorchs(function):
    """One anchor whose target is a shift by half its width: 0.5 * 0.5^2, as beta is 1."""
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, _ = function(
        anchor, torch.zeros(1, 1, 4), anchor[None] + torch.tensor([5.0, 0, 5, 0]), mask, "smooth_l1"
    )
    assert float(loss) == pytest.approx(0.125)


# --- Refusals -------------------------------------------------------------------------------------


def levels_of(*shapes):
    return [torch.zeros(shape) for shape in shapes]


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(labels=torch.zeros(2, 6)), TypeError, "labels: expected int64 or bool"),
        (dict(labels=torch.zeros(6, dtype=torch.bool)), ValueError, r"labels: expected shape \(N, R\), got \[6\]"),
        (dict(labels=torch.zeros(2, 6, dtype=torch.int32), num_classes=3), TypeError, "labels: expected int64 or bool, got int32"),
        (dict(labels=torch.zeros(2, 6).long()), ValueError, "num_classes: expected the number of classes with int64 labels, got None"),
        (dict(labels=torch.zeros(2, 6).long(), num_classes=-1), ValueError, "num_classes: expected the number .* int64 labels, got -1"),
        (dict(num_classes=3), ValueError, "num_classes: expected None with labels that are a bool mask, got 3"),
        (dict(anchors=torch.zeros(5, 4)), ValueError, r"anchors: expected shape \[6, 4\], got \[5, 4\]"),
        (dict(gt_boxes=torch.zeros(2, 5, 4)), ValueError, r"gt_boxes: expected shape \[2, 6, 4\]"),
        (dict(deltas=[torch.zeros(2, 0, 2, 3)]), ValueError, "deltas: expected the values of 6 anchors"),
        (dict(deltas=torch.zeros(2, 6, 5)), ValueError, "deltas: expected 4 values an anchor, got 5"),
        (dict(deltas=torch.zeros(2, 5, 4)), ValueError, r"deltas: expected the values of 6 anchors .* got shapes \[2, 5, 4\]"),
        (dict(deltas=torch.zeros(3, 6, 4)), ValueError, r"deltas: expected 2 images as in labels, got shape \[3, 6, 4\]"),
        (dict(deltas=levels_of((2, 8, 1, 2), (2, 4, 1, 1))), ValueError, r"same A .* got shapes \[2, 8, 1, 2\], \[2, 4, 1, 1\]"),
        (dict(deltas=levels_of((2, 8, 1, 2), (2, 6, 4))), ValueError, r"levels of shape \(N, A \* K, H, W\), got \[2, 6, 4\]"),
        (dict(deltas=[]), ValueError, "deltas: expected 1 to 16 levels, got 0"),
        (dict(box_weights=(1.0, 1.0)), ValueError, "box_weights: expected 4 numbers, got 2"),
        (dict(beta=-1.0), ValueError, r"beta: expected 0 to 1e30, got -1"),
        (dict(beta=math.nan), ValueError, r"beta: expected 0 to 1e30, got nan"),
        (dict(kind="smooth_l1", beta=math.inf), ValueError, r"beta: expected 0 to 1e30, got inf"),
        (dict(eps=-1e-7), ValueError, r"eps: expected 0 to 1e30, got -1e-07"),
        (dict(eps=math.nan), ValueError, r"eps: expected 0 to 1e30, got nan"),
        (dict(box_weights=(1.0, 0.0, 1.0, 1.0)), ValueError, "box_weights: expected positive numbers"),
        (dict(box_weights=(1.0, math.nan, 1.0, 1.0)), ValueError, "box_weights: expected positive numbers"),
        (dict(kind="wiou"), ValueError, "kind: expected one of"),
        (dict(scale=torch.ones(1)), ValueError, r"scale: expected a 0-dim tensor, got shape \[1\]"),
        (dict(scale=torch.ones((), requires_grad=True)), ValueError, "scale: expected a detached tensor"),
        (dict(scale="1"), TypeError, "scale: expected a float or a 0-dim tensor, got str"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_refusals(change, error, words, mode):
    arguments = dict(
        anchors=torch.zeros(6, 4),
        deltas=torch.zeros(2, 6, 4),
        gt_boxes=torch.zeros(2, 6, 4),
        labels=torch.zeros(2, 6, dtype=torch.bool),
        kind="iou",
    )
    arguments |= change
    with pytest.raises(error, match=words):
        dense_box_loss(**in_mode(arguments, mode))
