"""AlwaFCOS: with weights 1:1 it is Detectron2's FCOS."""

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.utils.events import EventStorage
from test_rcnn import NUM_CLASSES, assert_equal, losses_and_gradients, make_batch
from test_retinanet import make_cfg as retina_cfg

from alwa_d2.modeling import AlwaFCOS
from alwa_d2.weighting import ALWA, Fixed


def make_fcos(cls, **kwargs):
    torch.manual_seed(0)
    backbone = build_model(retina_cfg("RetinaNet")).backbone
    names = ["p3", "p4", "p5", "p6", "p7"]
    shapes = [backbone.output_shape()[name] for name in names]
    head = FCOSHead(input_shape=shapes, num_classes=NUM_CLASSES, conv_dims=[16])
    return cls(
        backbone=backbone, head=head, head_in_features=names, num_classes=NUM_CLASSES,
        pixel_mean=[0.0] * 3, pixel_std=[255.0] * 3, **kwargs,
    ).train()  # fmt: skip


def test_fcos_equals_detectron2():
    """Three steps with weights 1:1; then its two losses are weighted, centre-ness is not."""
    ours = make_fcos(AlwaFCOS, loss_weighter=ALWA("loss_fcos_cls", "loss_fcos_loc"))
    stock = make_fcos(FCOS)
    for seed in range(3):
        assert_equal(ours, stock, make_batch((4, 0, 2)), seed)
    assert float(ours.loss_normalizer) == pytest.approx(stock.loss_normalizer, rel=1e-12)
    halved = make_fcos(
        AlwaFCOS, loss_weighter=Fixed("loss_fcos_cls", "loss_fcos_loc", weights=(0.5, 1))
    )
    batch = make_batch()
    losses, *_ = losses_and_gradients(make_fcos(FCOS), batch)
    weighted, *_ = losses_and_gradients(halved, batch)
    torch.testing.assert_close(weighted["loss_fcos_cls"], 0.5 * losses["loss_fcos_cls"])
    torch.testing.assert_close(weighted["loss_fcos_ctr"], losses["loss_fcos_ctr"])
    wrong = make_fcos(AlwaFCOS, loss_weighter=ALWA())
    with EventStorage(), pytest.raises(ValueError, match="needs the loss 'loss_cls'"):
        wrong(batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_losses_are_float32_in_mixed_precision(dtype):
    model = make_fcos(AlwaFCOS, loss_weighter=ALWA("loss_fcos_cls", "loss_fcos_loc"))
    with EventStorage(), torch.autocast("cpu", dtype=dtype):
        losses = model(make_batch())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("counts", [(0, 0), (3, 0)])
def test_images_without_boxes(counts):
    model = make_fcos(AlwaFCOS, loss_weighter=ALWA("loss_fcos_cls", "loss_fcos_loc"))
    losses, grads, _ = losses_and_gradients(model, make_batch(counts))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(grad.isfinite().all() for grad in grads.values())
    assert "head.bbox_pred.weight" in grads
