"""The box head's last layers with a fused box loss."""

import logging

import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import nn

from ..detectron2_private import become
from ..layers import dense_box_loss
from .box_loss_kind import check_box_loss_kind, takes_transform

logger = logging.getLogger(__name__)


class AlwaFastRCNNOutputLayers(FastRCNNOutputLayers):
    """
    Detectron2's box predictor whose box loss is fused, one of l1, smooth_l1, iou, giou, diou, ciou;
    class-agnostic or of each proposal's own class. Its value and gradient are Detectron2's.

    Attributes:
        loss_stats: key -> LossStats of the last batch's losses, where a kernel computed them
    """

    loss_stats = {}  # of a predictor that has seen no batch; replace_in runs no __init__

    @staticmethod
    def replace_in(roi_heads: nn.Module) -> None:
        """
        Makes the box predictors of Detectron2's ROI heads predictors of this class, in place.

        They are in no registry, so that this is done to finished ones. A predictor of somebody's
        own stays as it is, which the log says.

        Raises:
            ValueError: a box loss that is not known
        """
        for module in roi_heads.modules():
            is_stock = type(module) is FastRCNNOutputLayers
            if is_stock and takes_transform(module.box2box_transform):
                check_box_loss_kind("ROI_BOX_HEAD", module.box_reg_loss_type)
                become(module, AlwaFastRCNNOutputLayers)
        for name, module in _box_predictors(roi_heads):
            if type(module) is not AlwaFastRCNNOutputLayers:
                logger.info(
                    f"roi_heads.{name} is a {type(module).__name__}, not Detectron2's "
                    "FastRCNNOutputLayers with a usual Box2BoxTransform: it keeps its own losses, "
                    "which no kernel computes and which have no statistics of each proposal."
                )

    def box_reg_loss(self, proposal_boxes, gt_boxes, pred_deltas, gt_classes):
        """
        See Detectron2's `FastRCNNOutputLayers.box_reg_loss`.

        Args:
            proposal_boxes, gt_boxes: (R, 4)
            pred_deltas: (R, 4) or (R, num_classes * 4)
            gt_classes: (R,); -1 ignore, num_classes background
        """
        count = len(gt_classes)
        gt_classes = gt_classes.long()
        if pred_deltas.shape[1] != 4:
            rows = torch.arange(count, device=pred_deltas.device)
            own = gt_classes.clamp(0, self.num_classes - 1)
            pred_deltas = pred_deltas.view(-1, self.num_classes, 4)[rows, own]
        # One image of R anchors. Divided by all of them, not by the foreground ones, so that each
        # of these counts alike in every batch.
        loss, stats = dense_box_loss(
            proposal_boxes,
            pred_deltas[None],
            gt_boxes[None],
            gt_classes[None],
            self.box_reg_loss_type,
            num_classes=self.num_classes,
            box_weights=self.box2box_transform.weights,
            beta=self.smooth_l1_beta,
            scale=1 / max(count, 1),
        )
        self.loss_stats = {"loss_box_reg": stats}
        return loss


def _box_predictors(roi_heads: nn.Module):
    """Name and module of the box predictors of Detectron2's ROI heads: one, or a cascade's."""
    predictor = getattr(roi_heads, "box_predictor", None)
    if isinstance(predictor, nn.ModuleList):
        return [(f"box_predictor.{stage}", module) for stage, module in enumerate(predictor)]
    return [] if predictor is None else [("box_predictor", predictor)]
