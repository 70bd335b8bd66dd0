"""configs/retina_alwa.yaml as a LazyConfig: a small RetinaNet with ALWA on the embedded set."""

import torch
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from fvcore.common.param_scheduler import MultiStepParamScheduler

from alwa_d2.engine import VOCEvaluator
from alwa_d2.modeling import AlwaRetinaNet
from alwa_d2.weighting import ALWA

model = get_config("common/models/retinanet.py").model
model._target_ = AlwaRetinaNet
model.loss_weighter = L(ALWA)(interval=100)  # without this line weights are 1:1
model.box_reg_loss_type = "giou"
model.num_classes = 5
model.pixel_std = [57.375, 57.12, 58.395]
model.backbone.bottom_up.stem.norm = model.backbone.norm = "GN"
model.backbone.bottom_up.stages = dict(
    _target_=model.backbone.bottom_up.stages._target_, depth=18, norm="GN"
)
model.backbone.out_channels = 64
model.backbone.top_block.in_channels = 512
model.head.input_shape = [ShapeSpec(channels=64)] * 5
model.head.conv_dims = [64, 64]
model.head.norm = "GN"
model.anchor_generator.sizes = [
    [size, size * 2 ** (1 / 3), size * 2 ** (2 / 3)] for size in (16, 32, 64, 128, 256)
]

dataloader = get_config("common/data/coco.py").dataloader
dataloader.train.dataset.names = "shapes_train"
dataloader.train.mapper.use_instance_mask = False
dataloader.train.mapper.augmentations[0].update(short_edge_length=160, max_size=320)
dataloader.train.update(total_batch_size=8, num_workers=0)
dataloader.test.dataset.names = "shapes_test"
dataloader.test.mapper.augmentations[0].update(short_edge_length=160, max_size=320)
dataloader.test.num_workers = 0
dataloader.evaluator = L(VOCEvaluator)(dataset_name="${..test.dataset.names}")

optimizer = get_config("common/optim.py").SGD
optimizer.lr = 0.04
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
lr_multiplier.warmup_length = 100 / 1000
lr_multiplier.scheduler = L(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01], milestones=[800, 950, 1000]
)

train = get_config("common/train.py").train
train.max_iter = 1000
train.output_dir = "output/lazy_retinanet_alwa"
train.device = "cuda" if torch.cuda.is_available() else "cpu"
