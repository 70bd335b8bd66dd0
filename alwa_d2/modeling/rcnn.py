"""Faster, Mask, Keypoint and Cascade R-CNN with loss weighters."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch import GeneralizedRCNN
from torch import nn

from ..weighting import Fixed, LoadsStockCheckpoints, LossWeighter
from .fast_rcnn import AlwaFastRCNNOutputLayers
from .groups import (
    MakeWeighter,
    Pair,
    build_loss_weighters,
    check_weighed,
    make_weighter,
    repeated,
)


@META_ARCH_REGISTRY.register()
class AlwaGeneralizedRCNN(LoadsStockCheckpoints, GeneralizedRCNN):
    """
    Detectron2's R-CNN whose losses are weighted while it trains.

    `MODEL.LOSS_WEIGHTER.LOSSES` says which: by default the pairs of classification and box loss of
    the RPN, and of the box head or each cascade stage. All others are left as they are. The box
    head's box loss is fused; the RPN's losses are where `MODEL.PROPOSAL_GENERATOR.NAME` is AlwaRPN.
    Parameters have Detectron2's names, so that its checkpoints load; with weights 1:1 losses and
    gradients are Detectron2's.

    Attributes:
        loss_weighters: name -> :class:`LossWeighter`, one for each group of losses
    """

    @configurable
    def __init__(
        self,
        *,
        loss_weighters: Sequence[LossWeighter] | MakeWeighter = Fixed,
        all_losses: bool = False,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            loss_weighters: one for each group of losses; no loss is in two of them. Or a class, or
                a `partial` of one, which is called with the names of each pair that the model has.
                By default weights of 1
            all_losses: whether a loss that is in none of them is refused, in the first iteration
            kwargs: see Detectron2's :class:`GeneralizedRCNN`
        """
        super().__init__(**kwargs)
        AlwaFastRCNNOutputLayers.replace_in(self.roi_heads)
        # By name, so that a checkpoint with other groups does not get into these.
        weighters = self._make(loss_weighters)
        if twice := repeated(weighter.keys for weighter in weighters):
            raise ValueError(
                "loss_weighters: expected each loss in one of them, got '{}' in {}".format(*twice)
            )
        self.loss_weighters = nn.ModuleDict({"-".join(w.keys): w for w in weighters})
        self.all_losses = all_losses
        for weighter in weighters:
            weighter.attach(self)

    def _make(self, given: Sequence[LossWeighter] | MakeWeighter) -> list[LossWeighter]:
        if isinstance(given, Sequence) and not isinstance(given, str):
            return [make_weighter("loss_weighters", weighter, ()) for weighter in given]
        pairs = default_pairs(self.proposal_generator, self.roi_heads)
        return [make_weighter("loss_weighters", given, pair) for pair in pairs]

    @classmethod
    def from_config(cls, cfg):
        ret = super().from_config(cfg)
        roi_heads = ret["roi_heads"]
        pairs = default_pairs(ret["proposal_generator"], roi_heads)
        others = [
            loss
            for loss, switch in (("loss_mask", "mask_on"), ("loss_keypoint", "keypoint_on"))
            if getattr(roi_heads, switch, False)
        ]
        ret["loss_weighters"] = build_loss_weighters(cfg, pairs, others)
        ret["all_losses"] = cfg.MODEL.LOSS_WEIGHTER.LOSSES == "all"
        return ret

    def forward(self, batched_inputs: list[dict[str, torch.Tensor]]):
        """See Detectron2's :class:`GeneralizedRCNN`; in training the losses are weighted."""
        if not self.training:
            return self.inference(batched_inputs)
        return self._weighted_losses(batched_inputs)

    @torch.jit.unused
    def _weighted_losses(self, batched_inputs):
        losses = super().forward(batched_inputs)
        weighters = self.loss_weighters.values()
        check_weighed(weighters, losses, self.all_losses)  # before one has observed anything
        stats = self._loss_stats()
        for weighter in weighters:
            losses = weighter(losses, {key: stats[key] for key in weighter.keys if key in stats})
        return losses

    def _loss_stats(self):
        """Key -> LossStats of this batch, for the losses that kernels computed."""
        stats = dict(getattr(self.proposal_generator, "loss_stats", {}))
        predictor = getattr(self.roi_heads, "box_predictor", None)
        for suffix, stage in _stages(predictor):
            for key, value in getattr(stage, "loss_stats", {}).items():
                stats[key + suffix] = value
        return stats


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
