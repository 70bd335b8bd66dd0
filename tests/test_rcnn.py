"""Two-stage models and FCOS: with weights 1:1 they are Detectron2's; pairs of losses; bad batches."""

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from conftest import BOX_KINDS, DEVICES, random_boxes
from alwa_d2 import add_alwa_config

NUM_CLASSES = 3
# Detectron2's own files, made small below.
FILES = {
    "C4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "DC5": "COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml",
    "FPN": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "mask C4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "mask": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "keypoint": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "cascade": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
}
RPN_PAIR = ("loss_rpn_cls", "loss_rpn_loc")
ROI_PAIR = ("loss_cls", "loss_box_reg")


def make_cfg(name="FPN", alwa=True, device="cpu", **keys):
    """A small model of Detectron2's file `name`, with random weights; `keys` have __ for dots."""
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(FILES[name]))
    classes = 1 if name == "keypoint" else NUM_CLASSES
    opts = [
        "MODEL.DEVICE", str(device),
        "MODEL.WEIGHTS", "",
        "MODEL.BACKBONE.FREEZE_AT", 0,
        "MODEL.RESNETS.STEM_OUT_CHANNELS", 8,
        "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
        "MODEL.RESNETS.WIDTH_PER_GROUP", 8,
        "MODEL.RESNETS.NORM", "BN",
        "MODEL.FPN.OUT_CHANNELS", 16,
        "MODEL.ROI_HEADS.NUM_CLASSES", classes,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32,
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE", 64,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN", 100,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50,
        "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
        "MODEL.ROI_MASK_HEAD.CONV_DIM", 8,
        "MODEL.ROI_MASK_HEAD.NUM_CONV", 1,
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (8,),
        "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", 0,
    ]  # fmt: skip
    if alwa:
        opts += ["MODEL.META_ARCHITECTURE", "AlwaGeneralizedRCNN"]
        opts += ["MODEL.PROPOSAL_GENERATOR.NAME", "AlwaRPN"]
    cfg.merge_from_list(opts)
    cfg.merge_from_list([x for key, value in keys.items() for x in (key.replace("__", "."), value)])
    return cfg


def make_model(*args, **kwargs):
    torch.manual_seed(0)
    return build_model(make_cfg(*args, **kwargs)).train()


def make_batch(counts=(4, 2), size=128, num_classes=NUM_CLASSES):
    """Random images with so many boxes, box-shaped masks and keypoints each."""
    batch = []
    for count in counts:
        boxes = random_boxes(count, size, torch.float32)
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.randint(0, num_classes, (count,))
        pixel = torch.arange(size)
        across = (pixel >= boxes[:, 0:1]) & (pixel < boxes[:, 2:3])
        down = (pixel >= boxes[:, 1:2]) & (pixel < boxes[:, 3:4])
        instances.gt_masks = BitMasks(down[:, :, None] & across[:, None, :])
        points = (
            boxes[:, None, :2] + torch.rand(count, 17, 2) * (boxes[:, 2:] - boxes[:, :2])[:, None]
        )
        instances.gt_keypoints = Keypoints(torch.cat([points, torch.full((count, 17, 1), 2.0)], 2))
        batch.append({"image": torch.rand(3, size, size) * 255, "instances": instances})
    return batch


def losses_and_gradients(model, batch, seed=1):
    """The seed fixes which anchors and proposals are sampled."""
    model.zero_grad()
    torch.manual_seed(seed)
    with EventStorage() as storage:
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients, storage


def assert_equal(ours, stock, batch, seed=1):
    losses, grads, storage = losses_and_gradients(ours, batch, seed)
    expected, expected_grads, expected_storage = losses_and_gradients(stock, batch, seed)
    assert list(losses) == list(expected)
    for key in losses:
        torch.testing.assert_close(losses[key], expected[key], rtol=1e-5, atol=1e-8)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        scale = expected_grads[name].abs().max()
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=2e-5 * scale)
    assert storage.latest().keys() >= expected_storage.latest().keys()
    for key, (value, _) in expected_storage.latest().items():
        assert storage.latest()[key][0] == pytest.approx(value, rel=1e-6), key


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weighter", ["Fixed", "ALWA"])
@pytest.mark.parametrize("name", FILES)
def test_equals_detectron2(name, weighter, device):
    """Two steps of each architecture, with one image without boxes; weights are 1."""
    keys = dict(MODEL__LOSS_WEIGHTER__NAME=weighter)
    ours, stock = (make_model(name, alwa, device, **keys) for alwa in (True, False))
    for seed in range(2):
        assert_equal(ours, stock, make_batch((4, 0, 2), num_classes=1), seed)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
@pytest.mark.parametrize("agnostic", [True, False])
def test_equals_detectron2_for_every_box_loss_it_has(kind, agnostic):
    keys = dict(
        MODEL__RPN__BBOX_REG_LOSS_TYPE=kind,
        MODEL__RPN__SMOOTH_L1_BETA=0.1,
        MODEL__RPN__LOSS_WEIGHT=0.5,
        MODEL__RPN__BBOX_REG_LOSS_WEIGHT=3.0,
        MODEL__RPN__BBOX_REG_WEIGHTS=(2.0, 2.0, 1.0, 0.5),
        MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE=kind,
        MODEL__ROI_BOX_HEAD__SMOOTH_L1_BETA=0.1,
        MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_WEIGHT=2.0,
        MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG=agnostic,
    )
    ours, stock = (make_model("FPN", alwa, **keys) for alwa in (True, False))
    assert_equal(ours, stock, make_batch())
