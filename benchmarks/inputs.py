"""Random inputs of a dense head's losses, in the sizes of real heads and in each form."""

from dataclasses import dataclass

import torch
from torch import Tensor

ANCHORS = 9  # A, anchors a position
STRIDES = (8, 16, 32, 64, 128)

# Images, their height and width in pixels, classes K, foreground anchors in all: 4842, 114318 and
# 201600 anchors an image.
SIZES = {
    "small": (2, 160, 160, 3, 70),
    "voc": (2, 608, 1000, 20, 218),
    "coco": (2, 800, 1344, 80, 425),
}
# One (N, R, K) tensor, or the head's outputs (N, A * K, H, W) in either memory format.
FORMS = ("flat", "nchw", "nhwc")


@dataclass
class Inputs:
    """
    Attributes:
        form: one of FORMS
        shapes: (H, W) of each level
        logits, deltas: one (N, R, K) and (N, R, 4), or levels of (N, A * K, H, W), (N, A * 4, H, W)
        labels: (N, R) int64: -1 ignore, 0 to K - 1 foreground, K background
        anchors: (R, 4) XYXY, pixels
        gt_boxes: (N, R, 4) XYXY, pixels
    """

    form: str
    classes: int
    shapes: list[tuple[int, int]]
    logits: list[Tensor]
    deltas: list[Tensor]
    labels: Tensor
    anchors: Tensor
    gt_boxes: Tensor

    def foreground(self):
        """(N, R) bool, made of the labels anew, as Detectron2's losses begin."""
        return (self.labels >= 0) & (self.labels != self.classes)

    def plain(self, name):
        """`logits` or `deltas` as alwa_d2's functions take them."""
        return getattr(self, name)[0] if self.form == "flat" else getattr(self, name)


def make_inputs(size, form="flat", dtype=torch.float32, device="cpu"):
    """:class:`Inputs` of a size in SIZES; logits lie where a head's bias puts them at first."""
    images, height, width, classes, foreground = SIZES[size]
    shapes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    anchors = ANCHORS * sum(h * w for h, w in shapes)
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((images * anchors,), classes)
    chosen = torch.randperm(len(labels), generator=generator)
    labels[chosen[:foreground]] = torch.randint(classes, (foreground,), generator=generator)
    labels[chosen[foreground : 2 * foreground]] = -1
    labels = labels.view(images, anchors)
    boxes, moved = random_boxes(anchors, images, generator)
    logits = torch.randn(images, anchors, classes, generator=generator) - 4.6
    deltas = torch.randn(images, anchors, 4, generator=generator) * 0.1
    return Inputs(
        form=form,
        classes=classes,
        shapes=shapes,
        logits=[x.to(device, dtype) for x in in_form(logits, form, shapes)],
        deltas=[x.to(device, dtype) for x in in_form(deltas, form, shapes)],
        labels=labels.to(device),
        anchors=boxes.to(device),
        gt_boxes=moved.to(device),
    )


def random_boxes(count, images, generator):
    """(count, 4) boxes, and for each image (images, count, 4) boxes near them; XYXY, pixels."""
    corners = torch.rand(count, 2, generator=generator) * 500
    extents = 20 + torch.rand(count, 2, generator=generator) * 80
    boxes = torch.cat([corners, corners + extents], 1)
    return boxes, boxes + torch.randn(images, count, 4, generator=generator) * 4


def in_form(x, form, shapes):
    """(N, R, K) in one of FORMS: a list of tensors."""
    if form == "flat":
        return [x]
    levels = []
    for (h, w), level in zip(shapes, x.split([ANCHORS * h * w for h, w in shapes], 1)):
        level = level.reshape(len(x), h, w, -1).permute(0, 3, 1, 2)
        kind = torch.channels_last if form == "nhwc" else torch.contiguous_format
        levels.append(level.contiguous(memory_format=kind))
    return levels
