"""Faster, Mask, Keypoint and Cascade R-CNN with loss weighters."""

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from torch import nn

from ..weighting import LossWeighter
from .fast_rcnn import AlwaFastRCNNOutputLayers
from .pairs import Pair, build_loss_weighters, check_pair


@META_ARCH_REGISTRY.register()
class AlwaGeneralizedRCNN(GeneralizedRCNN):
    """
    Detectron2's R-CNN whose pairs of classification and box loss are weighted while it trains.

    The pairs are those of `MODEL.ALWA.PAIRS`, by default the RPN's, and the box head's or each
    cascade stage's. All other losses, those of masks and keypoints, are left as they are. The box
    head's box loss is fused; the RPN's losses are where `MODEL.PROPOSAL_GENERATOR.NAME` is AlwaRPN.
    Parameters have Detectron2's names, so that its checkpoints load; with weights 1:1 losses and
    gradients are Detectron2's.

    Attributes:
        loss_weighters: name -> :class:`LossWeighter`, one for each pair
    """

    @configurable
    def __init__(self, *, loss_weighters: Sequence[LossWeighter], **kwargs):
        """
        Args:
            loss_weighters: one for each pair of losses; no loss is in two of them
            kwargs: see Detectron2's :class:`GeneralizedRCNN`
        """
        super().__init__(**kwargs)
        AlwaFastRCNNOutputLayers.replace_in(self.roi_heads)
        # By name, so that a checkpoint with other pairs does not get into these.
        self.loss_weighters = nn.ModuleDict({f"{w.cls_key}-{w.reg_key}": w for w in loss_weighters})

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        pairs = default_pairs(ret["proposal_generator"], ret["roi_heads"])
        ret["loss_weighters"] = build_loss_weighters(cfg, pairs)
        return ret

    def forward(self, batched_inputs: list[dict[str, torch.Tensor]]):
        """See Detectron2's :class:`GeneralizedRCNN`; in training the losses are weighted."""
        if not self.training:
            return self.inference(batched_inputs)
        return self._weighted_losses(batched_inputs)

    @torch.jit.unused
    def _weighted_losses(self, batched_inputs):
        losses = super().forward(batched_inputs)
        for weighter in self.loss_weighters.values():
            check_pair(weighter, losses)  # all, before the first one has observed anything
        stats = self._loss_stats()
        for weighter in self.loss_weighters.values():
            pair = (weighter.cls_key, weighter.reg_key)
            losses = weighter(losses, {key: stats[key] for key in pair if key in stats})
        return losses

    def _loss_stats(self):
        """Key -> LossStats of this batch, for the losses that kernels computed."""
        stats = dict(getattr(self.proposal_generator, "loss_stats", {}))
        predictor = getattr(self.roi_heads, "box_predictor", None)
        for suffix, stage in _stages(predictor):
            for key, value in getattr(stage, "loss_stats", {}).items():
                stats[key + suffix] = value
        return stats

    def reset_loss_state(self) -> bool:
        """Sets the weighters back to where a training starts; whether one of them had moved."""
        return any([weighter.reset() for weighter in self.loss_weighters.values()])


def default_pairs(proposal_generator: nn.Module | None, roi_heads: nn.Module) -> list[Pair]:
    """The pairs of losses that an R-CNN of these two parts has."""
    pairs = [] if proposal_generator is None else [("loss_rpn_cls", "loss_rpn_loc")]
    for suffix, _ in _stages(getattr(roi_heads, "box_predictor", None)):
        pairs.append((f"loss_cls{suffix}", f"loss_box_reg{suffix}"))
    return pairs


def _stages(box_predictor):
    """What Detectron2 adds to the names of a box predictor's losses, and that predictor."""
    if isinstance(box_predictor, nn.ModuleList):
        return [(f"_stage{k}", stage) for k, stage in enumerate(box_predictor)]
    return [("", box_predictor)]
