"""Detectron2's Mask R-CNN R50-FPN 1x with ALWA: two classes differ, and the weighters."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from alwa_d2.modeling import AlwaGeneralizedRCNN, AlwaRPN
from alwa_d2.weighting import ALWA

_zoo = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, train = _zoo.model, _zoo.dataloader, _zoo.train
optimizer, lr_multiplier = _zoo.optimizer, _zoo.lr_multiplier

model._target_ = AlwaGeneralizedRCNN
model.proposal_generator._target_ = AlwaRPN
model.loss_weighters = [
    L(ALWA)(cls_key="loss_rpn_cls", reg_key="loss_rpn_loc"),
    L(ALWA)(cls_key="loss_cls", reg_key="loss_box_reg"),
]
