"""What only a GPU can show: no waiting for it, graphs, and the same bits again."""

import pytest
import torch
from conftest import LEVEL_SHAPES, random_boxes

from alwa_d2.layers import (
    dense_box_loss,
    dense_focal_loss,
    label_anchors,
    loss_scales,
    pad_ground_truth,
)
from alwa_d2.weighting import ALWA

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CLASSES, ANCHORS, PADDED = 4, 3, 8


class LossSide:
    """A dense head's losses with a weighter, as a model has them."""

    def __init__(self, interval=3):
        torch.manual_seed(0)  # all of them are the same

        def levels(values):
            return [torch.randn(2, ANCHORS * values, h, w).cuda() for h, w in LEVEL_SHAPES]

        self.logits, self.deltas = levels(CLASSES), levels(4)
        self.anchors = random_boxes(ANCHORS * sum(h * w for h, w in LEVEL_SHAPES)).float().cuda()
        boxes = [random_boxes(5).float().cuda(), random_boxes(0).float().cuda()]
        classes = [torch.arange(5).cuda() % CLASSES, torch.zeros(0, dtype=torch.int64).cuda()]
        # Boxes and classes of a fixed number, into whose memory `move` puts others.
        self.padded = [pad_ground_truth(*truth, PADDED) for truth in zip(boxes, classes)]
        self.weighter = ALWA(interval=interval).cuda().train()
        self.normalizer = torch.tensor(100.0, dtype=torch.float64).cuda()
        for x in self.logits + self.deltas:
            x.requires_grad_()

    def forward(self):
        boxes, classes = zip(*self.padded)
        labels, boxes, count = label_anchors(self.anchors, boxes, classes, background=CLASSES)
        weights = self.weighter.weights.values()
        cls_scale, reg_scale, _ = loss_scales(count, self.normalizer, weights).unbind()
        cls, cls_stats = dense_focal_loss(self.logits, labels, scale=cls_scale)
        reg, reg_stats = dense_box_loss(
            self.anchors, self.deltas, boxes, labels, "ciou", num_classes=CLASSES, scale=reg_scale
        )
        sums = {"loss_cls": cls_stats.sum, "loss_box_reg": reg_stats.sum}
        self.weighter.observe({key: x / self.normalizer for key, x in sums.items()})
        return cls + reg

    def gradients(self):
        return torch.autograd.grad(self.forward(), self.logits + self.deltas)

    def move(self, iteration):
        """Other predictions and, of another number, ground truths in the same memory."""
        generator = torch.Generator().manual_seed(iteration)
        with torch.no_grad():
            for x in self.logits + self.deltas:
                x.mul_(1 + 0.1 * iteration)
        for count, padded in zip((iteration % PADDED, (3 * iteration) % PADDED), self.padded):
            corner = 50 * torch.rand(count, 2, generator=generator)
            boxes = torch.cat([corner, corner + 1 + corner.flip(1)], dim=1).cuda()
            classes = torch.randint(0, CLASSES, (count,), generator=generator).cuda()
            for x, y in zip(padded, pad_ground_truth(boxes, classes, PADDED)):
                x.copy_(y)


def test_nothing_waits_for_the_device():
    side = LossSide()
    side.gradients()  # the first call may load kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            side.gradients()
            side.weighter.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_bits_again():
    first, second = (LossSide().gradients() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_graph_replays_across_a_window_s_end():
    """`step` counts outside; weights of a new window reach the recorded kernels."""
    eager, recorded = LossSide(), LossSide()
    state = {key: x.clone() for key, x in recorded.weighter.state_dict().items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        recorded.gradients()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradients = recorded.gradients()
    recorded.weighter.load_state_dict(state)
    recorded.normalizer.fill_(100)
    for iteration in range(8):
        for side in (eager, recorded):
            side.move(iteration)
        expected = eager.gradients()
        graph.replay()
        for side in (eager, recorded):
            side.weighter.step()
        for a, b in zip(expected, gradients, strict=True):
            torch.testing.assert_close(a, b)
    assert torch.equal(eager.weighter.weight_vector, recorded.weighter.weight_vector)
    assert eager.weighter.weight_vector[0] != 1
