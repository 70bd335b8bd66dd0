"""A loss weighter of one's own: after importing this file, MODEL.LOSS_WEIGHTER.NAME finds it."""

import torch

from alwa_d2.weighting import LOSS_WEIGHTER_REGISTRY, LossWeighter, scale_to_sum


@LOSS_WEIGHTER_REGISTRY.register()
class InverseRoot(LossWeighter):
    """Weights in proportion to 1 / sqrt(loss), of the same iteration."""

    known_before = False  # the weights need the losses: PyTorch multiplies, not the loss kernels
    config_keys = ("MODEL.LOSS_WEIGHTER.SUM_TO",)

    def __init__(self, *keys, sum_to=0.0):
        super().__init__(*keys)
        self.sum_to = sum_to
        self.register_buffer("last", torch.ones(len(self.keys), dtype=torch.float64))

    @classmethod
    def from_config(cls, cfg):
        return {"sum_to": cfg.MODEL.LOSS_WEIGHTER.SUM_TO}

    @property
    def weights(self):
        return dict(zip(self.keys, self.last.clone()))

    def weigh(self, losses):
        if self.observing:
            values = torch.stack([losses[key].detach().double() for key in self.keys])
            self.last.copy_(scale_to_sum(values.clamp(min=1e-4).rsqrt(), self.sum_to))
        return super().weigh(losses)


if __name__ == "__main__":
    weighter = InverseRoot("loss_cls", "loss_box_reg")
    weighter({"loss_cls": torch.tensor(4.0), "loss_box_reg": torch.tensor(1.0)})
    print({key: round(float(weight), 3) for key, weight in weighter.weights.items()})
