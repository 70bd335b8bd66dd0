"""configs/fcos_alwa.yaml as a LazyConfig: a small FCOS with ALWA on the embedded set."""

from detectron2.modeling.meta_arch.fcos import FCOSHead

from alwa_d2.modeling import AlwaFCOS

from .retinanet_alwa import dataloader, lr_multiplier, model, optimizer, train  # noqa: F401

model._target_ = AlwaFCOS
model.loss_weighter.update(cls_key="loss_fcos_cls", reg_key="loss_fcos_loc")
for _name in (
    "anchor_generator", "anchor_matcher", "box2box_transform", "box_reg_loss_type", "input_format",
):  # fmt: skip
    del model[_name]
model.head._target_ = FCOSHead
del model.head.num_anchors
model.test_score_thresh = 0.2
model.test_nms_thresh = 0.6

train.output_dir = "output/lazy_fcos_alwa"
