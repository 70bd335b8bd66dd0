"""Detectron2's RetinaNet R50-FPN 1x with ALWA: two lines differ, for the model and the weighter."""

from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config

from alwa_d2.modeling import AlwaRetinaNet
from alwa_d2.weighting import ALWA

_zoo = get_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
model, dataloader, train = _zoo.model, _zoo.dataloader, _zoo.train
optimizer, lr_multiplier = _zoo.optimizer, _zoo.lr_multiplier

model._target_ = AlwaRetinaNet
model.loss_weighter = L(ALWA)()
