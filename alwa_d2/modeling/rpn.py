"""Region proposal network with fused losses."""

import torch
from detectron2.config import configurable
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN

from ..detectron2_private import subsample_labels
from ..layers import dense_box_loss, dense_focal_loss
from .anchors import cat_anchors, keep_anchors_of
from .box_loss_kind import check_box_loss_kind, check_transform
from .labels import labels_by


@PROPOSAL_GENERATOR_REGISTRY.register()
class AlwaRPN(RPN):
    """
    Detectron2's RPN with fused losses: objectness and six kinds of box loss.

    Labels are the same, and with the same random state so are the sampled anchors; but a ground
    truth of class -1 is padding, where RPN does not look at classes. Losses and
    gradients are RPN's to rounding; weights are put on by the meta-architecture. The numbers of
    sampled anchors are not put into the event storage in every iteration, which would wait for the
    device: `anchor_counts` has them, for `LossWeightLogger` to put there.

    Attributes:
        loss_stats: key -> LossStats of the last batch's losses
    """

    @configurable
    def __init__(self, **kwargs):
        """
        Args:
            kwargs: see Detectron2's :class:`RPN`; `box_reg_loss_type` is one of l1, smooth_l1, iou,
                giou, diou, ciou
        """
        super().__init__(**kwargs)
        check_box_loss_kind("RPN", self.box_reg_loss_type)
        check_transform(self.box2box_transform)
        keep_anchors_of(self.anchor_generator)
        self.loss_stats = {}
        self._images = 0  # of the last batch
        # Of a label 0, 1 or -1, as an index: the label that the kernels take, where 0 is the class
        # and 1 the background.
        self.register_buffer("_kernel_labels", torch.tensor([1, 0, -1]), persistent=False)

    @torch.jit.unused
    @torch.no_grad()
    def label_and_sample_anchors(self, anchors, gt_instances):
        """
        RPN's labels of the sampled anchors, and boxes, in tensors instead of lists.

        Args:
            anchors: Boxes of each level
            gt_instances: `Instances` of each of the N images

        Returns:
            (N, R), -1 ignore, 0 background and 1 foreground, and (N, R, 4); or RPN's lists, where a
            matcher of another type than Detectron2's labels them
        """
        if type(self.anchor_matcher) is not Matcher:
            return super().label_and_sample_anchors(anchors, gt_instances)
        anchors = cat_anchors(anchors)
        labels, boxes, _ = labels_by(
            self.anchor_matcher, anchors.tensor, gt_instances, background=0, foreground=1
        )
        lowest = self.anchor_matcher.labels[0]  # which Detectron2 gives where there is no box
        for label, instances in zip(labels, gt_instances):
            if len(instances) == 0 and lowest != 0:
                label.fill_(lowest)
            if self.anchor_boundary_thresh >= 0:
                inside = anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                label.masked_fill_(~inside, -1)
            subsample_labels(self, label)  # in place
        return labels, boxes

    def anchor_counts(self):
        """Name in the event storage -> 0-dim tensor, sampled anchors an image of the last batch."""
        if not self.loss_stats:
            return {}
        valid, positive = (self.loss_stats[key].count for key in ("loss_rpn_cls", "loss_rpn_loc"))
        return {
            "rpn/num_pos_anchors": positive / self._images,
            "rpn/num_neg_anchors": (valid - positive) / self._images,
        }

    @torch.jit.unused
    def losses(self, anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """
        See Detectron2's `RPN.losses`.

        Args:
            anchors: Boxes of each level
            pred_objectness_logits: (N, Hi * Wi * A) of each level
            gt_labels: (N, R), -1, 0 or 1; as `gt_boxes` a tensor or a list of the images'
            pred_anchor_deltas: (N, Hi * Wi * A, 4) of each level
            gt_boxes: (N, R, 4)
        """
        if not isinstance(gt_labels, torch.Tensor):
            # Detectron2's labels are int8.
            gt_labels, gt_boxes = torch.stack(gt_labels).long(), torch.stack(gt_boxes)
        self._images = len(gt_labels)
        normalizer = self.batch_size_per_image * self._images
        keys = ("loss_rpn_cls", "loss_rpn_loc")
        cls_scale, loc_scale = (self.loss_weight.get(key, 1.0) / normalizer for key in keys)
        labels = self._kernel_labels[gt_labels]
        # Binary cross-entropy is a focal loss without focus, of one class.
        loss_cls, cls_stats = dense_focal_loss(
            [x[:, None, :, None] for x in pred_objectness_logits],  # (N, 1, Hi * Wi * A, 1)
            labels,
            alpha=-1.0,
            gamma=0.0,
            scale=cls_scale,
        )
        loss_loc, loc_stats = dense_box_loss(
            cat_anchors(anchors).tensor,
            [x.mT[..., None] for x in pred_anchor_deltas],  # (N, 4, Hi * Wi * A, 1)
            gt_boxes,
            labels,
            self.box_reg_loss_type,
            num_classes=1,
            box_weights=self.box2box_transform.weights,
            beta=self.smooth_l1_beta,
            scale=loc_scale,
        )
        self.loss_stats = dict(zip(keys, (cls_stats, loc_stats)))
        return dict(zip(keys, (loss_cls, loss_loc)))
