"""What a dense head's loss side launches, forward and backward. Not collected by name:
test_cuda_on_host.py runs it in a process that has the device."""

import pytest
import torch
from conftest import LEVEL_SHAPES, random_boxes
from cuda_on_host import device

from alwa_d2.layers import box_loss, dense_box_loss, dense_focal_loss, label_anchors, loss_scales

CLASSES, PER_POSITION = 4, 3
ANCHORS = PER_POSITION * sum(h * w for h, w in LEVEL_SHAPES)


def levels(values, dtype=torch.float32):
    return [
        torch.randn(2, PER_POSITION * values, h, w, dtype=dtype).requires_grad_()
        for h, w in LEVEL_SHAPES
    ]


def ground_truth():
    boxes = [random_boxes(5).float(), random_boxes(0).float()]
    return boxes, [torch.arange(5) % CLASSES, torch.zeros(0, dtype=torch.int64)]


def test_from_labels_to_losses():
    anchors, (boxes, classes) = random_boxes(ANCHORS).float(), ground_truth()
    logits, deltas = levels(CLASSES), levels(4)
    normalizer = torch.tensor(100.0, dtype=torch.float64)
    weights = list(torch.ones(2, dtype=torch.float64))
    with device.record() as forward:
        labels, matched, count = label_anchors(anchors, boxes, classes, background=CLASSES)
        cls_scale, reg_scale, _ = loss_scales(count, normalizer, weights)
        cls, _ = dense_focal_loss(logits, labels, scale=cls_scale)
        reg, _ = dense_box_loss(
            anchors, deltas, matched, labels, "giou", num_classes=CLASSES, scale=reg_scale
        )
    assert forward.launches == [
        "memset",
        "highest_kernel",
        "label_kernel",
        "loss_scales_kernel",
        "focal_planes_kernel",
        "total_kernel",
        "dense_box_loss_kernel",
        "total_kernel",
    ]
    for loss, leaves in ((cls, logits), (reg, deltas)):
        one = torch.ones(())
        with device.record() as backward:
            torch.autograd.grad(loss, leaves, one)
        assert backward.launches == ["multiply_kernel"]


def test_float16_reads_twice():
    logits, labels = levels(CLASSES, torch.float16), torch.randint(-1, 5, (2, ANCHORS))
    with device.record() as recorded:
        loss, _ = dense_focal_loss(logits, labels)
        one = torch.ones(())
    assert recorded.kernels == ["focal_planes_kernel", "total_kernel"]
    with device.record() as recorded:
        torch.autograd.grad(loss, logits, one)
    assert recorded.launches == ["focal_planes_kernel"]


def test_without_low_quality_matches_anchors_are_looked_at_once():
    inputs = random_boxes(ANCHORS).float(), *ground_truth()
    with device.record() as recorded:
        label_anchors(*inputs, background=CLASSES, allow_low_quality_matches=False)
    assert recorded.launches == ["memset", "label_kernel"]


@pytest.mark.parametrize("reduction, launched", [("none", 1), ("mean", 2), ("sum", 2)])
def test_pairs(reduction, launched):
    pred, target = random_boxes(300).requires_grad_(), random_boxes(300)
    with device.record() as recorded:
        box_loss(pred, target, "ciou", reduction)
    assert recorded.launches == ["box_loss_kernel", "total_kernel"][:launched]
