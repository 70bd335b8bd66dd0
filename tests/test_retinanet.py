"""AlwaRetinaNet: with weights 1:1 it is Detectron2's RetinaNet; its state; bad batches."""

import copy

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import BOX_KINDS, DEVICES, assert_stock_loads, random_boxes
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from alwa_d2 import add_alwa_config
from alwa_d2.modeling import reset_loss_state
from alwa_d2.weighting import ALWA, Inverse, LossWeighter

NUM_CLASSES = 3


def make_cfg(architecture="AlwaRetinaNet", device="cpu", **opts):
    """A small RetinaNet of random weights; `opts` are config keys with _ for the dots of MODEL."""
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_list(
        [
            "MODEL.META_ARCHITECTURE", architecture,
            "MODEL.DEVICE", str(device),
            "MODEL.WEIGHTS", "",
            "MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone",
            "MODEL.BACKBONE.FREEZE_AT", 0,
            "MODEL.RESNETS.DEPTH", 18,
            "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
            "MODEL.RESNETS.NORM", "GN",
            "MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"],
            "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"],
            "MODEL.FPN.OUT_CHANNELS", 32,
            "MODEL.RETINANET.NUM_CLASSES", NUM_CLASSES,
            "MODEL.RETINANET.NUM_CONVS", 1,
            "MODEL.LOSS_WEIGHTER.NAME", "ALWA",
        ]
    )  # fmt: skip
    cfg.merge_from_list([item for pair in opts.items() for item in pair])
    return cfg


def make_model(*args, **kwargs):
    torch.manual_seed(0)
    return build_model(make_cfg(*args, **kwargs)).train()


def make_batch(counts=(4, 2), size=128):
    """Images of random pixels with so many boxes each, in Detectron2's input format."""
    batch = []
    for count in counts:
        instances = Instances((size, size))
        instances.gt_boxes = Boxes(random_boxes(count, size, torch.float32))
        instances.gt_classes = torch.randint(0, NUM_CLASSES, (count,))
        batch.append({"image": torch.rand(3, size, size) * 255, "instances": instances})
    return batch


def losses_and_gradients(model, batch):
    model.zero_grad()
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
@pytest.mark.parametrize("weighter", ["Fixed", "ALWA"])
def test_equals_detectron2(device, kind, weighter):
    """Three steps with weights 1:1, so that the moving normaliser is compared too."""
    keys = {
        "MODEL.RETINANET.BBOX_REG_LOSS_TYPE": kind,
        "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA": 0.1,
        "MODEL.RETINANET.BBOX_REG_WEIGHTS": (2.0, 2.0, 1.0, 0.5),
        "MODEL.LOSS_WEIGHTER.NAME": weighter,
    }
    ours = make_model(device=device, **keys)
    stock = make_model("RetinaNet", device=device, **keys)
    for _ in range(3):
        batch = make_batch((4, 0, 2))
        losses, grads = losses_and_gradients(ours, batch)
        expected, expected_grads = losses_and_gradients(stock, batch)
        assert list(losses) == list(expected)
        for key in losses:
            torch.testing.assert_close(losses[key], expected[key], rtol=1e-5, atol=0)
        assert grads.keys() == expected_grads.keys()
        for name in grads:
            scale = expected_grads[name].abs().max()
            torch.testing.assert_close(
                grads[name], expected_grads[name], rtol=1e-4, atol=2e-5 * scale
            )
    assert float(ours.loss_normalizer) == pytest.approx(stock.loss_normalizer, rel=1e-12)


@pytest.mark.parametrize("kind", BOX_KINDS)
@pytest.mark.parametrize("counts", [(0, 0), (3, 0)])
def test_images_without_boxes(kind, counts):
    model = make_model(**{"MODEL.RETINANET.BBOX_REG_LOSS_TYPE": kind})
    losses, grads = losses_and_gradients(model, make_batch(counts))
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["loss_box_reg"] > 0) == (sum(counts) > 0)
    assert all(grad.isfinite().all() for grad in grads.values())
    assert "head.bbox_pred.weight" in grads


def test_weights_scale_losses_and_gradients():
    batch = make_batch()
    plain = make_model(**{"MODEL.LOSS_WEIGHTER.NAME": "Fixed"})
    weighted = make_model(
        **{"MODEL.LOSS_WEIGHTER.NAME": "Fixed", "MODEL.LOSS_WEIGHTER.WEIGHTS": [0.25, 0.5]}
    )
    losses, grads = losses_and_gradients(plain, batch)
    scaled, scaled_grads = losses_and_gradients(weighted, batch)
    torch.testing.assert_close(scaled["loss_cls"], 0.25 * losses["loss_cls"])
    torch.testing.assert_close(scaled["loss_box_reg"], 0.5 * losses["loss_box_reg"])
    # The last layers see one of the two losses alone.
    for name, factor in (("head.cls_score.bias", 0.25), ("head.bbox_pred.bias", 0.5)):
        torch.testing.assert_close(scaled_grads[name], factor * grads[name])


def test_alwa_observes_the_unweighted_losses_and_weighs_the_next_iterations():
    model = make_model(**{"MODEL.ALWA.INTERVAL": 2})
    unweighted = make_model(**{"MODEL.LOSS_WEIGHTER.NAME": "Fixed"})
    window = []
    for _ in range(2):
        batch = make_batch()
        losses, _ = losses_and_gradients(model, batch)
        window.append([float(losses[key]) for key in ("loss_cls", "loss_box_reg")])
        losses_and_gradients(unweighted, batch)
    s_cls, s_reg = torch.tensor(window, dtype=torch.float64).std(0).tolist()
    weight = 1 - (s_cls - s_reg) / s_cls if s_cls > s_reg else 1.0
    assert float(model.loss_weighter.weights["loss_cls"]) == pytest.approx(weight, rel=1e-4)
    batch = make_batch()
    losses, _ = losses_and_gradients(model, batch)
    expected, _ = losses_and_gradients(unweighted, batch)
    assert float(losses["loss_cls"]) == pytest.approx(
        weight * float(expected["loss_cls"]), rel=1e-4
    )
    observed, stats = model.loss_weighter.observed
    assert float(observed["loss_cls"]) == pytest.approx(float(expected["loss_cls"]), rel=1e-5)
    assert float(stats["loss_box_reg"].count) == float(model.num_pos_anchors) * len(batch)


def test_learnt_weights_get_a_gradient():
    """A weighter with parameters multiplies outside the kernels."""

    class Learnt(LossWeighter):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([0.5, 2.0]))

        @property
        def weights(self):
            return {"loss_cls": self.w[0], "loss_box_reg": self.w[1]}

    plain, learnt = make_model(**{"MODEL.LOSS_WEIGHTER.NAME": "Fixed"}), make_model()
    learnt.loss_weighter = Learnt()
    batch = make_batch()
    losses, _ = losses_and_gradients(plain, batch)
    weighted, grads = losses_and_gradients(learnt, batch)
    torch.testing.assert_close(weighted["loss_cls"], 0.5 * losses["loss_cls"])
    torch.testing.assert_close(weighted["loss_box_reg"], 2 * losses["loss_box_reg"])
    torch.testing.assert_close(
        grads["loss_weighter.w"], torch.stack(list(losses.values())).detach()
    )


def test_casting_the_model_leaves_the_normaliser_float64():
    model = make_model()
    losses_and_gradients(model, make_batch())
    normalizer = model.loss_normalizer.clone()
    assert torch.equal(model.float().loss_normalizer, normalizer)
    losses_and_gradients(model, make_batch())


def test_nothing_moves_without_gradients_or_in_eval_mode():
    model = make_model()
    losses_and_gradients(model, make_batch())
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad(), EventStorage():
        model(make_batch())
    model.eval()(make_batch())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_checkpoint_of_stock_retinanet_loads(tmp_path, caplog):
    model = make_model()
    assert_stock_loads(make_model("RetinaNet"), model, tmp_path, caplog)
    assert caplog.text.count("ALWA begins anew") == 1
    assert float(model.loss_normalizer) == model.normalizer_start


def test_a_strict_load_names_what_stock_has_not_got():
    model, stock = make_model(), make_model("RetinaNet").state_dict()
    with pytest.raises(
        RuntimeError, match='Missing key.*"loss_normalizer", "loss_weighter.window"'
    ):
        model.load_state_dict(stock)
    # As checkpointers load: what begins anew is not missing, anything else is.
    assert not model.load_state_dict(stock, strict=False).missing_keys
    del stock["head.bbox_pred.bias"]
    missing, _ = model.load_state_dict(stock, strict=False)
    assert missing == ["head.bbox_pred.bias"]


def test_weights_that_follow_from_the_losses_multiply_outside():
    """Both losses come out with the size of their harmonic mean."""
    plain, inverse = make_model(**{"MODEL.LOSS_WEIGHTER.NAME": "Fixed"}), make_model()
    inverse.loss_weighter = Inverse("loss_cls", "loss_box_reg")
    batch = make_batch()
    losses, _ = losses_and_gradients(plain, batch)
    weighted, _ = losses_and_gradients(inverse, batch)
    cls, reg = (float(losses[key].detach()) for key in ("loss_cls", "loss_box_reg"))
    for loss in weighted.values():
        assert float(loss.detach()) == pytest.approx(2 / (1 / cls + 1 / reg), rel=1e-5)
    observed, _ = inverse.loss_weighter.observed
    assert float(observed["loss_cls"]) == pytest.approx(cls, rel=1e-5)


def test_state_survives_a_checkpoint_and_reset(tmp_path):
    model = make_model(**{"MODEL.ALWA.INTERVAL": 2})
    for _ in range(3):
        losses_and_gradients(model, make_batch())
    DetectionCheckpointer(model, save_dir=str(tmp_path)).save("model")
    other = make_model(**{"MODEL.ALWA.INTERVAL": 2})
    DetectionCheckpointer(other).load(str(tmp_path / "model.pth"))
    batch = make_batch()
    for _ in range(2):
        losses, _ = losses_and_gradients(model, batch)
        resumed, _ = losses_and_gradients(other, batch)
        assert all(torch.equal(losses[key], resumed[key]) for key in losses)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0, equal_nan=True)

    assert reset_loss_state(other)
    assert not reset_loss_state(other)
    assert float(other.loss_normalizer) == model.normalizer_start
    assert float(other.loss_weighter.weights["loss_cls"]) == 1
    own = torch.nn.ModuleList([ALWA(interval=2), model])  # any model that weighters are in
    own[0].load_state_dict(model.loss_weighter.state_dict())
    assert reset_loss_state(own) and not reset_loss_state(own) and not own[0].slot.any()


def test_the_normaliser_moves_with_the_model_and_not_with_the_weighter():
    model = make_model()
    model.loss_weighter.eval()
    losses_and_gradients(model, make_batch())
    assert float(model.loss_normalizer) != model.normalizer_start
    with torch.device("meta"):
        model = build_model(make_cfg(**{"MODEL.DEVICE": "meta"}))
    assert model.to_empty(device="cpu").loss_normalizer.dtype == torch.float64


@pytest.mark.parametrize(
    "key, value, choices",
    [
        ("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "wiou", "l1, smooth_l1, iou, giou, diou, ciou"),
        ("MODEL.LOSS_WEIGHTER.NAME", "alwa", "ALWA, CoV"),
        ("MODEL.ALWA.VARIANT", "ALWA_3", "ALWA_1, ALWA_2"),
        ("MODEL.ALWA.RULE", "paper", "authors, balance"),
        ("MODEL.ALWA.INTERVAL", 1, "at least 2"),
        ("MODEL.ALWA.MIN_WEIGHT", 0.0, "0 < weight <= 1"),
    ],
)
def test_bad_config_values_are_refused_by_name(key, value, choices):
    with pytest.raises(ValueError) as error:
        make_model(**{key: value})
    for part in (key, str(value), choices):
        assert part in str(error.value)
