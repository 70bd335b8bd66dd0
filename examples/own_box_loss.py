"""A box loss of one's own, 1 - IoU^3 (arXiv 2110.13675), in Detectron2's RetinaNet, with ALWA."""

import torch
from detectron2.config import instantiate
from detectron2.model_zoo import get_config
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from alwa_d2.layers import box_loss
from alwa_d2.weighting import ALWA


class PowerIoURetinaNet(RetinaNet):
    def losses(self, anchors, logits, labels, deltas, boxes):
        losses = super().losses(anchors, logits, labels, deltas, boxes)
        points, labels = Boxes.cat(anchors).tensor, torch.stack(labels)
        is_object = (labels >= 0) & (labels < self.num_classes)
        pred = [self.box2box_transform.apply_deltas(x, points) for x in torch.cat(deltas, dim=1)]
        iou = 1 - box_loss(torch.stack(pred)[is_object], torch.stack(boxes)[is_object], "iou")
        losses["loss_box_reg"] = (1 - iou**3).sum() / self.loss_normalizer
        return self.weighter(losses)


torch.manual_seed(0)
config = get_config("common/models/retinanet.py").model
config._target_ = PowerIoURetinaNet
model = instantiate(config)
model.weighter = ALWA("loss_cls", "loss_box_reg", interval=2)
truth = Instances((64, 64), gt_boxes=Boxes([[8, 8, 50, 40]]), gt_classes=torch.tensor([1]))
with EventStorage():
    for image in 255 * torch.rand(2, 3, 64, 64):
        sum(model([{"image": image, "instances": truth}]).values()).backward()
print({key: round(float(weight), 3) for key, weight in model.weighter.weights.items()})
