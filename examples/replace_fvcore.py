"""fvcore's losses in a Detectron2 project, and the two lines that take their place: the same values
and gradients, without one-hot targets."""

import torch
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch.nn.functional import one_hot

from alwa_d2.layers import box_loss, dense_focal_loss

torch.manual_seed(0)
logits = torch.randn(2, 1000, 20, requires_grad=True)  # images, anchors, classes
labels = torch.randint(-1, 21, (2, 1000))  # -1 ignore, 20 background
boxes, truth = (torch.rand(2, 100, 4) * 50 + torch.tensor([0, 0, 50, 50])).requires_grad_()  # XYXY

valid = labels >= 0
targets = one_hot(labels[valid], 21)[:, :-1]
cls_before = sigmoid_focal_loss(logits[valid], targets, alpha=0.25, gamma=2.0, reduction="sum")
box_before = giou_loss(boxes, truth, reduction="sum")

cls_after, _ = dense_focal_loss(logits, labels, alpha=0.25, gamma=2.0)
box_after = box_loss(boxes, truth, "giou", reduction="sum")

print(f"focal {cls_before:.3f} -> {cls_after:.3f}, GIoU {box_before:.4f} -> {box_after:.4f}")
