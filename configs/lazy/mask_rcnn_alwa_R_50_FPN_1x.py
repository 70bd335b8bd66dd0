"""Detectron2's Mask R-CNN R50-FPN 1x with ALWA: two lines differ, for the RPN and the rest."""

from detectron2.model_zoo import get_config

from alwa_d2.modeling import AlwaGeneralizedRCNN, AlwaRPN

_zoo = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
model, dataloader, train = _zoo.model, _zoo.dataloader, _zoo.train
optimizer, lr_multiplier = _zoo.optimizer, _zoo.lr_multiplier

model._target_ = AlwaGeneralizedRCNN
model.proposal_generator._target_ = AlwaRPN
