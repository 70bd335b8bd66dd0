"""FCOS with fused losses and a loss weighter."""

from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.meta_arch import FCOS
from detectron2.modeling.meta_arch.fcos import FCOSHead
from torch.nn.functional import binary_cross_entropy_with_logits

from ..config import check_added
from ..layers import box_loss, dense_focal_loss
from ..weighting import Fixed, LossWeighter
from .anchors import cat_anchors, keep_anchors_of
from .groups import MakeWeighter, build_one_weighter, check_weighed, make_weighter
from .normalizer import LossNormalizer

PAIR = ("loss_fcos_cls", "loss_fcos_loc")
OTHER = "loss_fcos_ctr"


@META_ARCH_REGISTRY.register()
class AlwaFCOS(LossNormalizer, FCOS):
    """
    Detectron2's FCOS whose classification and box loss are fused and weighted while it trains.

    Built in Python, as Detectron2's, or from a config: its keys are those of `MODEL.FCOS`. The
    centre-ness loss is left as it is where `MODEL.LOSS_WEIGHTER.LOSSES` does not name it. The loss
    normaliser is a buffer: see :class:`LossNormalizer`.
    """

    normalizer_start = 300.0  # Detectron2's

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
            loss_weighter: weighs two or all of loss_fcos_cls, loss_fcos_loc and loss_fcos_ctr; or a
                class, or a `partial` of one, which is called with the names of the first two; by
                default weights of 1
            sync_normalizer: whether the processes average their numbers of foreground anchors
            kwargs: see Detectron2's :class:`FCOS`
        """
        super().__init__(**kwargs)
        keep_anchors_of(self.anchor_generator)
        self.loss_weighter = make_weighter("loss_weighter", loss_weighter, PAIR)
        self.loss_weighter.attach(self)
        self.init_normalizer(sync_normalizer)

    @classmethod
    def from_config(cls, cfg):
        check_added(cfg)
        keys = cfg.MODEL.FCOS
        backbone = build_backbone(cfg)
        shapes = [backbone.output_shape()[name] for name in keys.IN_FEATURES]
        head = FCOSHead(
            input_shape=shapes,
            num_classes=keys.NUM_CLASSES,
            conv_dims=[shapes[0].channels] * keys.NUM_CONVS,
            prior_prob=keys.PRIOR_PROB,
            norm=keys.NORM,
        )
        return {
            "loss_weighter": build_one_weighter(cfg, cls.__name__, PAIR, [OTHER]),
            "sync_normalizer": keys.SYNC_NORMALIZER,
            "backbone": backbone,
            "head": head,
            "head_in_features": keys.IN_FEATURES,
            "num_classes": keys.NUM_CLASSES,
            "center_sampling_radius": keys.CENTER_SAMPLING_RADIUS,
            "focal_loss_alpha": keys.FOCAL_LOSS_ALPHA,
            "focal_loss_gamma": keys.FOCAL_LOSS_GAMMA,
            "test_score_thresh": keys.SCORE_THRESH_TEST,
            "test_topk_candidates": keys.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": keys.NMS_THRESH_TEST,
            "max_detections_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def losses(
        self, anchors, pred_logits, gt_labels, pred_anchor_deltas, gt_boxes, pred_centerness
    ):
        """
        The losses of Detectron2's `FCOS.losses`, weighted. The weighter's `step` is in this, on the
        host. Weights that are known before the losses are part of their scales, so that the
        gradient which the focal kernel computes ahead needs no other factor.

        Args:
            anchors: Boxes of each level
            pred_logits: (N, Hi * Wi, K) of each level
            gt_labels: (R,) of each of the N images; K background
            pred_anchor_deltas: (N, Hi * Wi, 4) of each level
            gt_boxes: (R, 4) of each image
            pred_centerness: (N, Hi * Wi, 1) of each level
        """
        check_weighed([self.loss_weighter], (*PAIR, OTHER))
        gt_labels, gt_boxes = torch.stack(gt_labels), torch.stack(gt_boxes)  # (N, R), (N, R, 4)
        foreground = (gt_labels >= 0) & (gt_labels != self.num_classes)
        weights = self.loss_weighter.kernel_weights()
        scale = self.scales_of((*PAIR, OTHER), weights, foreground.sum(), len(gt_labels))
        loss_cls, stats = dense_focal_loss(
            [x.mT[..., None] for x in pred_logits],  # (N, K, Hi * Wi, 1)
            gt_labels, alpha=self.focal_loss_alpha, gamma=self.focal_loss_gamma,
            scale=scale["loss_fcos_cls"],
        )  # fmt: skip
        # Background is masked, not left out: how much is left would have to be read on the host.
        # Each point's own square is its box there, which keeps every value finite.
        points = cat_anchors(anchors).tensor.expand_as(gt_boxes)  # (N, R, 4)
        gt_boxes = torch.where(foreground[..., None], gt_boxes, points)
        deltas, centerness = torch.cat(pred_anchor_deltas, 1), torch.cat(pred_centerness, 1)
        loss_loc = self._box_loss(points, deltas, gt_boxes, foreground)
        loss_ctr = binary_cross_entropy_with_logits(
            _masked(centerness.squeeze(dim=2), foreground),
            self.compute_ctrness_targets(anchors, gt_boxes),
            weight=foreground.float(),
            reduction="sum",
        )
        sums = {"loss_fcos_loc": loss_loc, OTHER: loss_ctr}
        losses = {"loss_fcos_cls": loss_cls}
        losses |= {key: (x * scale[key]).to(x.dtype) for key, x in sums.items()}
        if not weights and self.loss_weighter.training:
            losses |= self.loss_weighter.weigh(losses)
        sums["loss_fcos_cls"] = stats.sum
        unweighted = {key: x.detach() / self.loss_normalizer for key, x in sums.items()}
        self.loss_weighter.take_in(unweighted, {"loss_fcos_cls": stats})
        return losses

    def compute_ctrness_targets(self, anchors, gt_boxes):
        """
        Detectron2's, (N, R), but not indexed by lists, which would be copied to the device.

        Args:
            anchors: Boxes of each level
            gt_boxes: (R, 4) of each of the N images
        """
        points = cat_anchors(anchors).tensor
        sides = [self.box2box_transform.get_deltas(points, boxes) for boxes in gt_boxes]
        sides = torch.stack(sides).unflatten(-1, (2, 2))  # (left, top), (right, bottom)
        return (sides.amin(dim=-2) / sides.amax(dim=-2)).prod(dim=-1).sqrt()

    def _box_loss(self, points, deltas, gt_boxes, foreground):
        """Sum over the foreground, from (N, R, 4) each and (N, R)."""
        deltas = _masked(deltas, foreground[..., None]).flatten(0, 1)
        boxes = self.box2box_transform.apply_deltas(deltas, points.flatten(0, 1))
        losses = box_loss(boxes, gt_boxes.flatten(0, 1), "giou")
        return torch.where(foreground.flatten(), losses, 0).sum()


def _masked(x, mask):
    """In float32, 0 where the mask is not; there the gradient is exactly 0, whatever x was."""
    return torch.where(mask, x.float(), 0)
