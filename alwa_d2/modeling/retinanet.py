"""RetinaNet with fused losses and a loss weighter."""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes

from ..layers import BOX_LOSS_KINDS, dense_box_loss, label_anchors, sigmoid_focal_loss
from ..weighting import LossWeighter, build_loss_weighter

# Detectron2's normaliser: a moving average of the number of foreground anchors in a batch.
NORMALIZER_START = 100.0
NORMALIZER_MOMENTUM = 0.9


@META_ARCH_REGISTRY.register()
class AlwaRetinaNet(RetinaNet):
    """
    Detectron2's RetinaNet whose classification and box loss are fused kernels, weighted while it
    trains.

    Parameters have RetinaNet's names, so that its checkpoints load. With weights 1:1 losses and
    gradients are RetinaNet's. The losses are computed from the head's outputs as they lie in
    memory, and no step of theirs waits for the device. The anchors' labels, equal to RetinaNet's,
    come from one op as well.

    Two things are said otherwise than there: the loss normaliser is a buffer, saved with the model,
    and it does not move in passes without gradients. As there, each process has its own.

    Attributes:
        loss_weighter: the :class:`LossWeighter` of ("loss_cls", "loss_box_reg")
        num_pos_anchors: 0-dim tensor, foreground anchors per image of the last batch, or None
    """

    @configurable
    def __init__(self, *, loss_weighter: LossWeighter, **kwargs):
        """
        Args:
            loss_weighter: weighs "loss_cls" and "loss_box_reg"
            kwargs: see Detectron2's :class:`RetinaNet`; `box_reg_loss_type` is one of l1,
                smooth_l1, iou, giou, diou, ciou
        """
        super().__init__(**kwargs)
        if self.box_reg_loss_type not in BOX_LOSS_KINDS:
            raise ValueError(
                "box_reg_loss_type (MODEL.RETINANET.BBOX_REG_LOSS_TYPE): expected one of "
                f"{', '.join(BOX_LOSS_KINDS)}, got '{self.box_reg_loss_type}'"
            )
        self.loss_weighter = loss_weighter
        self.register_buffer("loss_normalizer", torch.tensor(NORMALIZER_START, dtype=torch.float64))
        self._last_foreground = None  # its count, (), and the number of images

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        ret["loss_weighter"] = build_loss_weighter(cfg, "loss_cls", "loss_box_reg")
        return ret

    def forward_training(self, images, features, predictions, gt_instances):
        logits, deltas = predictions  # levels of (N, A * K, H, W) and (N, A * 4, H, W)
        anchors = Boxes.cat(self.anchor_generator(features))
        gt_labels, gt_boxes = self.label_anchors([anchors], gt_instances)  # (N, R), (N, R, 4)
        foreground = (gt_labels >= 0) & (gt_labels != self.num_classes)
        normalizer = self._update_normalizer(foreground)

        # Divisions from here on make new tensors, which later updates of the normaliser leave.
        weights = self.loss_weighter.weights
        # Known weights go into the kernels; a learnt one gets its gradient from a product outside.
        learnt = {key for key, weight in weights.items() if weight.requires_grad}
        scale = {k: (1 if k in learnt else w) / normalizer for k, w in weights.items()}
        losses, stats = {}, {}
        losses["loss_cls"], stats["loss_cls"] = sigmoid_focal_loss(
            logits,
            gt_labels,
            alpha=self.focal_loss_alpha,
            gamma=self.focal_loss_gamma,
            scale=scale["loss_cls"],
        )
        losses["loss_box_reg"], stats["loss_box_reg"] = dense_box_loss(
            anchors.tensor,
            deltas,
            gt_boxes,
            foreground,
            self.box_reg_loss_type,
            box_weights=self.box2box_transform.weights,
            beta=self.smooth_l1_beta,
            scale=scale["loss_box_reg"],
        )
        for key in learnt:
            losses[key] = losses[key] * weights[key].to(losses[key].dtype)
        if self.loss_weighter.observing:
            unweighted = {key: value.sum / normalizer for key, value in stats.items()}
            self.loss_weighter.observe(unweighted, stats)
            self.loss_weighter.step()
        return losses

    def label_anchors(self, anchors, gt_instances):
        """RetinaNet's labels and boxes, in tensors (N, R) and (N, R, 4) instead of lists."""
        # Of one level, as they come from forward_training, no copy is made.
        all_levels = anchors[0] if len(anchors) == 1 else Boxes.cat(anchors)
        return label_anchors(
            all_levels.tensor,
            [instances.gt_boxes.tensor for instances in gt_instances],
            [instances.gt_classes for instances in gt_instances],
            # The Matcher has put infinities at both ends.
            thresholds=self.anchor_matcher.thresholds[1:-1],
            labels=self.anchor_matcher.labels,
            allow_low_quality_matches=self.anchor_matcher.allow_low_quality_matches,
            background=self.num_classes,
        )

    def reset_loss_state(self) -> bool:
        """Sets weighter and normaliser back to where a training starts; whether they had moved."""
        moved = bool(self.loss_normalizer != NORMALIZER_START)
        self.loss_weighter.reset()
        self.loss_normalizer.fill_(NORMALIZER_START)
        return moved

    @property
    def num_pos_anchors(self):
        if self._last_foreground is None:
            return None
        count, images = self._last_foreground
        return count / images

    def _update_normalizer(self, foreground):
        """The normaliser for this batch, ()."""
        count = foreground.sum()
        self._last_foreground = (count, len(foreground))
        if self.loss_weighter.observing:
            self.loss_normalizer.mul_(NORMALIZER_MOMENTUM)
            self.loss_normalizer.add_(count.clamp(min=1), alpha=1 - NORMALIZER_MOMENTUM)
        return self.loss_normalizer

    def _apply(self, fn, recurse=True):
        normalizer = self.loss_normalizer
        super()._apply(fn, recurse)
        # It moves with the model, but stays float64 where the model is cast.
        self.loss_normalizer = normalizer.to(self.loss_normalizer.device)
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # A checkpoint of RetinaNet's own has no normaliser: the start value stands.
        fresh = self.loss_normalizer.new_tensor(NORMALIZER_START)
        state_dict.setdefault(prefix + "loss_normalizer", fresh)
        super()._load_from_state_dict(state_dict, prefix, *args)
