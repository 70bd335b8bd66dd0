"""RetinaNet with fused losses and a loss weighter."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import RetinaNet

from ..layers import dense_box_loss, dense_focal_loss
from ..weighting import Fixed, LossWeighter
from .anchors import cat_anchors, keep_anchors_of
from .box_loss_kind import check_box_loss_kind, check_transform
from .groups import MakeWeighter, build_one_weighter, check_weighed, make_weighter
from .labels import labels_by
from .normalizer import LossNormalizer

PAIR = ("loss_cls", "loss_box_reg")


@META_ARCH_REGISTRY.register()
class AlwaRetinaNet(LossNormalizer, RetinaNet):
    """
    Detectron2's RetinaNet whose classification and box loss are fused kernels, weighted while it
    trains.

    Parameters have RetinaNet's names, so that its checkpoints load. With weights 1:1 losses and
    gradients are RetinaNet's. The losses are computed from the head's outputs as they lie in
    memory, and no step of theirs waits for the device. The anchors' labels, equal to RetinaNet's,
    come from one op as well; a ground truth of class -1 is padding. The loss normaliser is a
    buffer: see :class:`LossNormalizer`.

    `label_anchors` and `losses` take and return tensors, and the number of foreground anchors
    besides: a subclass of RetinaNet that overrides these two has to be adapted.

    Attributes:
        loss_weighter: the :class:`LossWeighter` of ("loss_cls", "loss_box_reg")
    """

    normalizer_start = 100.0  # Detectron2's

    @configurable
    def __init__(
        self,
        *,
        loss_weighter: LossWeighter | MakeWeighter = Fixed,
        sync_normalizer: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            loss_weighter: weighs "loss_cls" and "loss_box_reg"; or a class, or a `partial` of one,
                which is called with these two names; by default weights of 1
            sync_normalizer: whether the processes average their numbers of foreground anchors
            kwargs: see Detectron2's :class:`RetinaNet`; `box_reg_loss_type` is one of l1,
                smooth_l1, iou, giou, diou, ciou
        """
        super().__init__(**kwargs)
        check_box_loss_kind("RETINANET", self.box_reg_loss_type)
        check_transform(self.box2box_transform)
        keep_anchors_of(self.anchor_generator)
        self.loss_weighter = make_weighter("loss_weighter", loss_weighter, PAIR)
        self.loss_weighter.attach(self)
        self.init_normalizer(sync_normalizer)

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        ret["loss_weighter"] = build_one_weighter(cfg, cls.__name__, PAIR)
        ret["sync_normalizer"] = cfg.MODEL.RETINANET.SYNC_NORMALIZER
        return ret

    def forward_training(self, images, features, predictions, gt_instances):
        check_weighed([self.loss_weighter], PAIR)
        logits, deltas = predictions
        anchors = cat_anchors(self.anchor_generator(features))
        gt_labels, gt_boxes, num_foreground = self.label_anchors([anchors], gt_instances)
        losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes, num_foreground)
        self.loss_weighter.end_iteration()
        return losses

    def losses(
        self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes, num_foreground=None
    ):
        """
        The weighted losses, after the weighter has observed them. Its `step`, on the host, is left
        to the caller, so that this can be compiled as a whole.

        Args:
            anchors: Boxes of all levels, (R, 4)
            pred_logits: (N, A * K, H, W) of each level
            gt_labels: (N, R); -1 ignore, K background
            pred_anchor_deltas: (N, A * 4, H, W) of each level
            gt_boxes: (N, R, 4)
            num_foreground: 0-dim int64, the anchors of all images whose label is a class, as
                `label_anchors` gives it; None: counted here
        """
        if num_foreground is None:
            num_foreground = ((gt_labels >= 0) & (gt_labels != self.num_classes)).sum()
        weights = self.loss_weighter.kernel_weights()
        scale = self.scales_of(PAIR, weights, num_foreground, len(gt_labels))
        losses, stats = {}, {}
        losses["loss_cls"], stats["loss_cls"] = dense_focal_loss(
            pred_logits, gt_labels,
            alpha=self.focal_loss_alpha, gamma=self.focal_loss_gamma, scale=scale["loss_cls"],
        )  # fmt: skip
        losses["loss_box_reg"], stats["loss_box_reg"] = dense_box_loss(
            anchors.tensor, pred_anchor_deltas, gt_boxes, gt_labels, self.box_reg_loss_type,
            num_classes=self.num_classes, box_weights=self.box2box_transform.weights,
            beta=self.smooth_l1_beta, scale=scale["loss_box_reg"],
        )  # fmt: skip
        if not weights and self.loss_weighter.training:
            losses = self.loss_weighter.weigh(losses)
        if self.loss_weighter.observing:
            unweighted = {key: value.sum / self.loss_normalizer for key, value in stats.items()}
            self.loss_weighter.observe(unweighted, stats)
        return losses

    def label_anchors(self, anchors, gt_instances):
        """
        RetinaNet's labels and boxes, in tensors instead of lists.

        Args:
            anchors: Boxes of each level
            gt_instances: `Instances` of each of the N images

        Returns:
            (N, R), -1 ignore and `num_classes` background; (N, R, 4); and the number of foreground
            anchors, (), or None where a matcher of another type than Detectron2's labels them
        """
        if type(self.anchor_matcher) is not Matcher:
            gt_instances = [instances[instances.gt_classes >= 0] for instances in gt_instances]
            labels, boxes = super().label_anchors(anchors, gt_instances)
            return torch.stack(labels), torch.stack(boxes), None
        return labels_by(
            self.anchor_matcher,
            cat_anchors(anchors).tensor,
            gt_instances,
            background=self.num_classes,
        )
