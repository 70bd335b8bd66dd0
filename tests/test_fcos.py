"""AlwaFCOS: with weights 1:1 it is Detectron2's FCOS."""

from functools import partial
from unittest import mock

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.utils.events import EventStorage
from test_rcnn import NUM_CLASSES, assert_equal, losses_and_gradients, make_batch
from test_retinanet import make_cfg as retina_cfg

from alwa_d2.modeling import AlwaFCOS, fcos
from alwa_d2.weighting import ALWA, Fixed, Inverse, Uncertainty


def make_fcos(cls, head_width=16, **kwargs):
    torch.manual_seed(0)
    backbone = build_model(retina_cfg("RetinaNet")).backbone
    names = ["p3", "p4", "p5", "p6", "p7"]
    shapes = [backbone.output_shape()[name] for name in names]
    head = FCOSHead(input_shape=shapes, num_classes=NUM_CLASSES, conv_dims=[head_width])
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


LOSSES = ("loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr")


@pytest.mark.parametrize(
    "weighter",
    [
        Fixed(*LOSSES, weights=(0.5, 2, 0.25)),
        Fixed(*LOSSES[:2], weights=(0.5, 2)),
        Inverse(*LOSSES),
    ],
    ids=["all", "pair", "after the losses"],
)
def test_weights_reach_losses_and_gradients_and_the_weighter_sees_none(weighter):
    """Those known before are in the kernel's scale, so that its gradient is finished."""
    model, stock = make_fcos(AlwaFCOS, loss_weighter=weighter), make_fcos(FCOS)
    batch = make_batch()
    with mock.patch.object(fcos, "dense_focal_loss", wraps=fcos.dense_focal_loss) as kernel:
        losses, grads, _ = losses_and_gradients(model, batch)
    weights = {key: float(w) for key, w in weighter.weights.items()}
    in_kernel = weights["loss_fcos_cls"] if weighter.known_before else 1
    scale = float(kernel.call_args.kwargs["scale"] * model.loss_normalizer)
    assert scale == pytest.approx(in_kernel)
    with EventStorage():
        plain = stock(batch)
    expected = {key: weights.get(key, 1) * loss for key, loss in plain.items()}
    sum(expected.values()).backward()
    for key, loss in losses.items():
        torch.testing.assert_close(loss, expected[key], rtol=1e-5, atol=1e-8)
    for name, parameter in stock.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-3, atol=1e-6)
    seen, stats = weighter.observed
    assert set(seen) == set(weighter.keys) and set(stats) == {"loss_fcos_cls"}
    for key, loss in seen.items():
        torch.testing.assert_close(loss.float(), plain[key].detach(), rtol=1e-5, atol=1e-8)


def make_from_config(*opts):
    cfg = retina_cfg("AlwaFCOS")
    fcos = ("MODEL.FCOS.NUM_CLASSES", NUM_CLASSES, "MODEL.FCOS.NUM_CONVS", 1, "MODEL.FCOS.NORM", "")
    cfg.merge_from_list([*fcos, "MODEL.PIXEL_MEAN", [0.0] * 3, "MODEL.PIXEL_STD", [255.0] * 3])
    cfg.merge_from_list(list(opts))
    torch.manual_seed(0)
    return build_model(cfg).train()


def test_built_from_a_config_it_is_the_one_built_in_python():
    """The same network; half a weight for the centre-ness loss, which `all` has in the group."""
    plain = make_fcos(FCOS, head_width=32)
    named = [["loss_fcos_ctr", 0.5]]
    model = make_from_config(
        "MODEL.LOSS_WEIGHTER.NAME", "Fixed", "MODEL.LOSS_WEIGHTER.LOSSES", "all",
        "MODEL.LOSS_WEIGHTER.WEIGHTS", named, "MODEL.FCOS.CENTER_SAMPLING_RADIUS", 1.5,
    )  # fmt: skip
    assert not model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    batch = make_batch()
    losses, *_ = losses_and_gradients(plain, batch)
    weighted, *_ = losses_and_gradients(model, batch)
    assert model.loss_weighter.keys == tuple(losses)
    for key, factor in zip(losses, (1, 1, 0.5)):
        torch.testing.assert_close(weighted[key], factor * losses[key], rtol=1e-5, atol=1e-8)
    assert make_from_config().loss_weighter.keys == ("loss_fcos_cls", "loss_fcos_loc")
    with torch.no_grad():
        assert [set(x) for x in model.eval()(batch)] == [{"instances"}] * len(batch)


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


def test_background_has_no_gradient_whatever_it_predicts():
    """Exactly 0 in boxes and centre-ness, also where background predicts NaN and infinity."""
    model = make_fcos(AlwaFCOS, loss_weighter=ALWA("loss_fcos_cls", "loss_fcos_loc"))
    levels = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
    features = [torch.zeros(2, 1, h, w) for h, w in levels]
    instances = [x["instances"] for x in make_batch((4, 0))]
    anchors = model.anchor_generator(features)
    labels, boxes = model.label_anchors(anchors, instances)
    background = torch.stack(labels) == NUM_CLASSES  # (N, R)
    count = background.shape[1]
    logits = torch.randn(2, count, NUM_CLASSES)
    deltas, centerness = torch.rand(2, count, 4), torch.randn(2, count, 1)

    def gradients(bad):
        predictions = []
        for x in (deltas, centerness):
            x = torch.where(background[..., None], bad, x) if bad is not None else x.clone()
            predictions.append(x.requires_grad_())
        arguments = (anchors, [logits], labels, predictions[0].split(count, 1), boxes)
        losses = model.losses(*arguments, [predictions[1]])
        return losses, torch.autograd.grad(sum(losses.values()), predictions)

    model.eval()  # neither weighter nor normaliser moves
    losses, expected = gradients(None)
    for bad in (torch.nan, torch.inf, -torch.inf, 1e30):
        found, grads = gradients(torch.tensor(bad))
        for key in losses:
            assert torch.equal(found[key], losses[key]), (key, bad)
        for ours, other in zip(grads, expected):
            assert torch.equal(ours, other)
            assert (ours[background] == 0).all() and (ours[~background] != 0).any()


@pytest.mark.parametrize("make", [partial(Fixed, weights=(0.5, 2)), partial(Uncertainty, start=2)])
@pytest.mark.parametrize("kind", ["AlwaFCOS", "AlwaRetinaNet"])
def test_a_weighter_in_eval_mode_weighs_nothing(kind, make):
    """As `LossWeighter` promises, also where kernels multiply."""
    if kind == "AlwaFCOS":
        model = make_fcos(AlwaFCOS)
    else:
        model = build_model(retina_cfg(kind)).train()
    batch, found = make_batch(), []
    for weighter in (Fixed(*model.loss_weighter.keys), make(*model.loss_weighter.keys)):
        model.loss_weighter = weighter.eval()
        model.reset_normalizer()
        found.append(losses_and_gradients(model, batch)[0])
    expected, losses = found
    for key, loss in losses.items():
        torch.testing.assert_close(loss, expected[key], rtol=1e-5, atol=1e-8)
