"""The losses, and the labels of anchors: fused kernels with a Python side, and what they mean in
plain PyTorch (reference)."""

from . import reference
from .box_loss import BOX_LOSS_KINDS, box_loss
from .dense_box_loss import dense_box_loss
from .focal_loss import dense_focal_loss, sigmoid_focal_loss
from .label_anchors import label_anchors, pad_ground_truth
from .loss_scales import loss_scales
from .loss_stats import LossStats

__all__ = [
    "BOX_LOSS_KINDS",
    "LossStats",
    "box_loss",
    "dense_box_loss",
    "dense_focal_loss",
    "label_anchors",
    "loss_scales",
    "pad_ground_truth",
    "reference",
    "sigmoid_focal_loss",
]
