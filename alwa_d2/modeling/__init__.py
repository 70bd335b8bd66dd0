"""Where losses and weights enter Detectron2's models."""

from .retinanet import AlwaRetinaNet

__all__ = ["AlwaRetinaNet"]
