"""Sizes around the edges of warps, blocks, vectors and pieces, and memory that begins anywhere: where
a kernel's last threads, or its wide loads, could go wrong."""

import pytest
import torch
from conftest import TOLERANCE, flatten_levels, random_boxes

from alwa_d2.layers import box_loss, dense_box_loss, dense_focal_loss, label_anchors, reference

COUNTS = (1, 2, 31, 32, 33, 127, 129, 255, 256, 257, 1023, 1024, 1025, 2049)
# H, W of one level: positions odd, a multiple of 2, 4, 8 or 16, and about those of a block.
SHAPES = ((1, 1), (1, 7), (3, 6), (5, 4), (2, 12), (4, 8), (5, 51), (16, 16), (257, 1), (33, 31))
FORMS = ("flat", "nchw", "nhwc")


def moved(x, offset):
    """The same numbers and strides, `offset` numbers further in memory of their own."""
    memory = x.new_zeros(x.numel() + offset)
    return memory.as_strided(x.size(), x.stride(), offset).copy_(x)


def in_form(level, values, form):
    if form == "flat":
        return flatten_levels([level], values).contiguous()
    return level.contiguous(memory_format=torch.channels_last) if form == "nhwc" else level


def flat(level, values):
    return level if level.dim() == 3 else flatten_levels([level], values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_classes", [1, 3, 4, 7, 8, 33])
def test_focal_loss(form, num_classes, dtype, device):
    for i, (h, w) in enumerate(SHAPES):
        level = torch.randn(2, 3 * num_classes, h, w).to(dtype) * 3
        labels = torch.randint(-1, num_classes + 1, (2, 3 * h * w))
        logits = moved(in_form(level, num_classes, form).to(device), i % 5).requires_grad_()
        exact = logits.detach().cpu().double().requires_grad_()
        loss, stats = dense_focal_loss(logits, labels.to(device), scale=0.3)
        expected, expected_stats = reference.dense_focal_loss(exact, labels, scale=0.3)
        torch.testing.assert_close(loss.cpu().double(), expected, **TOLERANCE[dtype])
        torch.testing.assert_close(stats.values.cpu(), expected_stats.values, **TOLERANCE[dtype])
        (grad,), (other,) = (torch.autograd.grad(*x) for x in ((loss, logits), (expected, exact)))
        assert grad.stride() == logits.stride()
        torch.testing.assert_close(grad.cpu().double(), other, **TOLERANCE[dtype])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("foreground", ["some", "none", "all", "last"])
def test_dense_box_loss(form, foreground, dtype, device):
    for i, (h, w) in enumerate(SHAPES):
        count = 3 * h * w
        anchors = random_boxes(count).to(dtype)
        gt_boxes = torch.stack([random_boxes(count), random_boxes(count)]).to(dtype)
        share = {"some": 0.2, "none": 0, "all": 1, "last": 0}[foreground]
        mask = torch.rand(2, count) < share
        mask[-1, -1] |= foreground == "last"
        level = (torch.randn(2, 12, h, w) * 0.1).to(dtype)
        deltas = moved(in_form(level, 4, form).to(device), i % 5).requires_grad_()
        exact = deltas.detach().cpu().double().requires_grad_()
        rest = [x.to(device) for x in (gt_boxes, moved(mask, i % 3))]
        loss, stats = dense_box_loss(anchors.to(device), deltas, *rest, "giou", scale=0.3)
        expected, expected_stats = reference.dense_box_loss(
            anchors.double(), exact, gt_boxes.double(), mask, "giou", scale=0.3
        )
        torch.testing.assert_close(loss.cpu().double(), expected, **TOLERANCE[dtype])
        torch.testing.assert_close(stats.values.cpu(), expected_stats.values, **TOLERANCE[dtype])
        (grad,), (other,) = (torch.autograd.grad(*x) for x in ((loss, deltas), (expected, exact)))
        assert grad.stride() == deltas.stride()
        torch.testing.assert_close(grad.cpu().double(), other, **TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_box_loss(reduction, dtype, device):
    for i, count in enumerate(COUNTS):
        pred, target = (moved(random_boxes(count).to(dtype), i % 4) for _ in range(2))
        ours = pred.to(device).requires_grad_()
        exact = pred.double().requires_grad_()
        loss = box_loss(ours, target.to(device), "ciou", reduction)
        expected = reference.box_loss(exact, target.double(), "ciou", reduction)
        value = loss.detach().cpu().double()
        torch.testing.assert_close(value, expected.detach(), **TOLERANCE[dtype])
        weights = torch.linspace(0.5, 1.5, loss.numel(), dtype=torch.float64).view(loss.shape)
        (grad,) = torch.autograd.grad(loss, ours, weights.to(loss))
        (other,) = torch.autograd.grad(expected, exact, weights.to(loss).cpu().double())
        torch.testing.assert_close(grad.cpu().double(), other, **TOLERANCE[dtype])


@pytest.mark.parametrize("low_quality", [True, False])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_label_anchors(precision, low_quality, device):
    for i, count in enumerate(COUNTS):
        anchors = moved(random_boxes(count, dtype=precision), i % 4)
        boxes = [random_boxes(n, dtype=precision) for n in (COUNTS[-i - 1] // 4, 0, 1, 5)]
        classes = [torch.randint(0, 7, (len(x),)) for x in boxes]
        options = dict(allow_low_quality_matches=low_quality, background=7)
        expected = reference.label_anchors(anchors, boxes, classes, **options)
        found = label_anchors(
            anchors.to(device),
            [x.to(device) for x in boxes],
            [x.to(device) for x in classes],
            **options,
        )
        for ours, other in zip(found, expected, strict=True):
            assert torch.equal(ours.cpu(), other)
