"""ALWA in torchvision's RetinaNet: a head whose two losses are weighted. The weighter is a part of
the model, so that checkpoints hold its state."""

import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead

from alwa_d2.weighting import ALWA


class WeightedHead(RetinaNetHead):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.weighter = ALWA("classification", "bbox_regression", interval=4)

    def compute_loss(self, targets, head_outputs, anchors, matched_idxs):
        return self.weighter(super().compute_loss(targets, head_outputs, anchors, matched_idxs))


torch.manual_seed(0)
backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
size = dict(min_size=64, max_size=64)
model = RetinaNet(backbone, num_classes=4, head=WeightedHead(256, 9, 4), **size).train()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
image = torch.rand(3, 64, 64)
target = {"boxes": torch.tensor([[8.0, 8.0, 50.0, 40.0]]), "labels": torch.tensor([1])}
for _ in range(12):
    optimizer.zero_grad()
    sum(model([image], [target]).values()).backward()
    optimizer.step()
print({key: round(float(weight), 3) for key, weight in model.head.weighter.weights.items()})
