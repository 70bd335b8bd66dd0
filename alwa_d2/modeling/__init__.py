"""Where losses and weights enter Detectron2's models."""

from .fast_rcnn import AlwaFastRCNNOutputLayers
from .fcos import AlwaFCOS
from .normalizer import reset_loss_state
from .rcnn import AlwaGeneralizedRCNN
from .retinanet import AlwaRetinaNet
from .rpn import AlwaRPN

__all__ = [
    "AlwaFCOS",
    "AlwaFastRCNNOutputLayers",
    "AlwaGeneralizedRCNN",
    "AlwaRPN",
    "AlwaRetinaNet",
    "reset_loss_state",
]
