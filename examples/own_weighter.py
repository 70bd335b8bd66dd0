"""A loss weighter of one's own: after importing this file, MODEL.LOSS_WEIGHTER.NAME finds it."""

import torch

from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY, Following, is_present, scale_to_sum


@LOSS_WEIGHTER_REGISTRY.register()
class InverseRoot(Following):
    """Weights in proportion to 1 / sqrt(loss), of the same iteration."""

    config_keys = ("MODEL.LOSS_WEIGHTER.SUM_TO",)

    def __init__(self, *keys, sum_to=0.0):
        super().__init__(*keys, interval=0, sum_to=sum_to)

    @classmethod
    def from_config(cls, cfg):
        return {"sum_to": cfg.MODEL.LOSS_WEIGHTER.SUM_TO}

    def from_losses(self, losses):
        weights = losses.clamp(min=1e-4).rsqrt()
        return scale_to_sum(weights, self.sum_to, is_present(losses))


if __name__ == "__main__":
    weighter = InverseRoot("loss_cls", "loss_box_reg")
    weighter({"loss_cls": torch.tensor(4.0), "loss_box_reg": torch.tensor(1.0)})
    print({key: round(float(weight), 3) for key, weight in weighter.weights.items()})
