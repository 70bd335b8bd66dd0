"""Two-stage models: with weights 1:1 they are Detectron2's; pairs of losses; bad batches."""

import logging
import math

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

from conftest import BOX_KINDS, DEVICES, assert_stock_loads, random_boxes
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformLinear
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from alwa_d2 import add_alwa_config
from alwa_d2.modeling import reset_loss_state
from alwa_d2.modeling.box_loss_kind import check_transform, takes_transform
from alwa_d2.modeling.fast_rcnn import AlwaFastRCNNOutputLayers

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
        opts += ["MODEL.LOSS_WEIGHTER.NAME", "ALWA"]
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
    # Some biases change nothing: their gradient is a sum that cancels. A GPU adds in another order
    # each time, and leaves other roundings of it.
    rounding = 1e-3 * max(grad.abs().max() for grad in expected_grads.values())
    for name, grad in grads.items():
        scale = max(expected_grads[name].abs().max(), rounding if grad.is_cuda else 0)
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-4, atol=2e-5 * scale)
    logged = expected_storage.latest()
    ours_logged = {key: value for key, (value, _) in storage.latest().items()}
    for module in ours.modules():  # the trainer's hook logs these
        if hasattr(module, "anchor_counts"):
            ours_logged |= {key: float(value) for key, value in module.anchor_counts().items()}
    for key, (value, _) in logged.items():
        assert ours_logged[key] == pytest.approx(value, rel=1e-6), key


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


@pytest.mark.parametrize(
    "name, keys",
    [
        ("FPN", dict(MODEL__ROI_BOX_HEAD__USE_SIGMOID_CE=True)),
        ("FPN", dict(MODEL__ROI_HEADS__NUM_CLASSES=1)),
        ("mask", dict(MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES=True)),
        ("FPN", dict(MODEL__BACKBONE__FREEZE_AT=5)),
        ("FPN", dict(MODEL__RPN__IOU_THRESHOLDS=[0.5], MODEL__RPN__IOU_LABELS=[0, 1])),
        ("FPN", dict(MODEL__RPN__LOSS_WEIGHT=0.0)),
        ("cascade", dict(MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE="giou")),
    ],
    ids=str,
)
def test_equals_detectron2_with_its_options(name, keys):
    ours, stock = (make_model(name, alwa, **keys) for alwa in (True, False))
    assert_equal(ours, stock, make_batch(num_classes=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", FILES)
def test_losses_are_float32_in_mixed_precision(name, dtype):
    model = make_model(name)
    with EventStorage(), torch.autocast("cpu", dtype=dtype):
        losses = model(make_batch(num_classes=1))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())


def test_an_rpn_with_a_labelling_of_its_own():
    """One that gives lists, as Detectron2's does."""
    ours, stock = (make_model("FPN", alwa) for alwa in (True, False))
    rpn = ours.proposal_generator
    rpn.label_and_sample_anchors = lambda *args: RPN.label_and_sample_anchors(rpn, *args)
    batch = make_batch()
    losses, _, _ = losses_and_gradients(ours, batch)
    expected, _, _ = losses_and_gradients(stock, batch)
    for key in losses:
        torch.testing.assert_close(losses[key], expected[key], rtol=1e-5, atol=1e-8)


def test_an_rpn_with_a_matcher_of_another_type():
    class WithoutBackground(Matcher):
        def __call__(self, quality):
            index, labels = super().__call__(quality)
            return index, labels.where(labels != 0, -1)

    ours, stock = (make_model("FPN", alwa) for alwa in (True, False))
    for model in (ours, stock):
        model.proposal_generator.anchor_matcher = WithoutBackground([0.3, 0.7], [0, -1, 1], True)
    assert_equal(ours, stock, make_batch())


@pytest.mark.parametrize("kind", BOX_KINDS)
@pytest.mark.parametrize("counts", [(0, 0), (3, 0)])
def test_images_without_boxes(kind, counts):
    keys = dict(MODEL__RPN__BBOX_REG_LOSS_TYPE=kind, MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE=kind)
    losses, grads, _ = losses_and_gradients(make_model(**keys), make_batch(counts))
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["loss_rpn_loc"] > 0) == (losses["loss_box_reg"] > 0) == (sum(counts) > 0)
    assert all(grad.isfinite().all() for grad in grads.values())
    assert "proposal_generator.rpn_head.anchor_deltas.weight" in grads


def test_no_proposals_at_all():
    """Without ground truth among the proposals, and with none from the RPN, nothing is sampled."""
    keys = dict(
        MODEL__ROI_HEADS__PROPOSAL_APPEND_GT=False, MODEL__PROPOSAL_GENERATOR__MIN_SIZE=10000
    )
    ours, stock = (make_model("FPN", alwa, **keys) for alwa in (True, False))
    assert_equal(ours, stock, make_batch())


@pytest.mark.parametrize("lowest", [-1, 0])
def test_anchors_of_images_without_boxes_have_the_lowest_label(lowest):
    """-1, which Detectron2's matcher recommends to leave such images out."""
    keys = dict(
        MODEL__RPN__IOU_THRESHOLDS=[0.05, 0.3, 0.7], MODEL__RPN__IOU_LABELS=[lowest, 0, -1, 1]
    )
    ours, stock = (make_model("FPN", alwa, **keys) for alwa in (True, False))
    assert_equal(ours, stock, make_batch([0, 3]))


def test_transforms_that_the_kernels_do_not_know_are_refused_or_left():
    clamped = Box2BoxTransform((1.0, 1.0, 1.0, 1.0), scale_clamp=math.log(4000 / 16))
    linear = Box2BoxTransformLinear()
    for transform in (clamped, linear):
        assert not takes_transform(transform)
        with pytest.raises(ValueError, match=f"scale_clamp .*, got a {type(transform).__name__}"):
            check_transform(transform)
    usual = make_model()
    assert takes_transform(usual.proposal_generator.box2box_transform)
    stock = make_model("FPN", False)
    (predictor,) = [m for m in stock.roi_heads.modules() if type(m) is FastRCNNOutputLayers]
    predictor.box2box_transform = clamped
    AlwaFastRCNNOutputLayers.replace_in(stock.roi_heads)
    assert type(predictor) is FastRCNNOutputLayers


@pytest.mark.parametrize("boundary", [0, 16])
def test_anchors_outside_the_image_are_left_out_where_asked(boundary):
    keys = dict(MODEL__RPN__BOUNDARY_THRESH=boundary)
    ours, stock = (make_model("FPN", alwa, **keys) for alwa in (True, False))
    assert_equal(ours, stock, make_batch())


WEIGHTS = dict(MODEL__LOSS_WEIGHTER__NAME="Fixed", MODEL__LOSS_WEIGHTER__WEIGHTS=[0.25, 0.5])


@pytest.mark.parametrize(
    "name, pairs",
    [
        ("FPN", [RPN_PAIR, ROI_PAIR]),
        ("mask", [RPN_PAIR, ROI_PAIR]),
        ("keypoint", [RPN_PAIR, ROI_PAIR]),
        (
            "cascade",
            [RPN_PAIR, *((f"loss_cls_stage{k}", f"loss_box_reg_stage{k}") for k in range(3))],
        ),
    ],
)
def test_every_pair_is_weighted_and_other_losses_are_left_to_the_bit(name, pairs):
    plain, weighted = make_model(name), make_model(name, **WEIGHTS)
    assert [(w.cls_key, w.reg_key) for w in weighted.loss_weighters.values()] == pairs
    batch = make_batch(num_classes=1)
    losses, grads, _ = losses_and_gradients(plain, batch)
    scaled, scaled_grads, _ = losses_and_gradients(weighted, batch)
    expected = {key: w for pair in pairs for key, w in zip(pair, (0.25, 0.5))}
    assert list(scaled) == list(losses)
    for key in losses:
        assert torch.equal(scaled[key], losses[key] * expected.get(key, 1.0)), key
    assert (name in ("mask", "keypoint", "cascade")) == (len(losses) > len(expected))
    # Layers that one loss alone trains.
    head = "proposal_generator.rpn_head"
    for layer, factor in (
        (f"{head}.objectness_logits.bias", 0.25),
        (f"{head}.anchor_deltas.bias", 0.5),
    ):
        torch.testing.assert_close(scaled_grads[layer], factor * grads[layer])
    for layer in grads:
        if layer.startswith(("roi_heads.mask_head.predictor", "roi_heads.keypoint_head.score")):
            assert torch.equal(scaled_grads[layer], grads[layer])


@pytest.mark.parametrize("key", ["MODEL__LOSS_WEIGHTER__LOSSES", "MODEL__ALWA__PAIRS"])
def test_pairs_from_the_config(key):
    batch = make_batch()
    losses, *_ = losses_and_gradients(make_model(), batch)
    only_rpn = make_model(**{key: [list(RPN_PAIR)]}, **WEIGHTS)
    weighted, *_ = losses_and_gradients(only_rpn, batch)
    assert list(only_rpn.loss_weighters) == ["loss_rpn_cls-loss_rpn_loc"]
    for key, factor in zip((*RPN_PAIR, *ROI_PAIR), (0.25, 0.5, 1, 1)):
        assert torch.equal(weighted[key], factor * losses[key])


@pytest.mark.parametrize("name, loss", [("mask", "loss_mask"), ("keypoint", "loss_keypoint")])
def test_all_losses_are_one_group(name, loss):
    """Of a mask and a keypoint model, with a weight of the third loss's own."""
    keys = dict(
        MODEL__LOSS_WEIGHTER__NAME="Fixed",
        MODEL__LOSS_WEIGHTER__LOSSES="all",
        MODEL__LOSS_WEIGHTER__WEIGHTS=[[loss, 0.25], ["loss_rpn_loc", 2.0]],
    )
    batch = make_batch(num_classes=1)
    losses, *_ = losses_and_gradients(make_model(name), batch)
    model = make_model(name, **keys)
    weighted, *_ = losses_and_gradients(model, batch)
    (weighter,) = model.loss_weighters.values()
    assert weighter.keys == (*RPN_PAIR, *ROI_PAIR, loss)
    for key in losses:
        factor = {loss: 0.25, "loss_rpn_loc": 2}.get(key, 1)
        assert torch.equal(weighted[key], factor * losses[key])


def test_a_pair_that_the_model_does_not_have_is_refused_in_the_first_iteration():
    """By name, with the losses that there are, before any weighter has observed one."""
    model = make_model(MODEL__LOSS_WEIGHTER__LOSSES=[list(RPN_PAIR), ["loss_cls", "loss_box"]])
    with EventStorage(), pytest.raises(ValueError) as error:
        model(make_batch())
    words = "(MODEL.LOSS_WEIGHTER.LOSSES): ['loss_cls', 'loss_box'] needs the loss 'loss_box'; this model has"
    assert words in str(error.value)
    assert "loss_box_reg, loss_cls, loss_rpn_cls, loss_rpn_loc" in str(error.value)
    assert all(w.observed is None and int(w.slot) == 0 for w in model.loss_weighters.values())


@pytest.mark.parametrize(
    "pairs",
    [[["a.b", "c"]], "loss_cls", [["loss_cls"]], [["loss_cls", 3]], ["loss_cls", "loss_box_reg"]],
)
def test_pairs_that_are_none_are_refused(pairs):
    with pytest.raises((ValueError, TypeError), match="MODEL.ALWA.PAIRS"):
        make_model(MODEL__ALWA__PAIRS=pairs)


def test_a_loss_in_two_pairs_is_refused():
    with pytest.raises(ValueError, match="expected each loss once, got 'loss_cls' again"):
        make_model(MODEL__ALWA__PAIRS=[["loss_cls", "loss_box_reg"], ["loss_rpn_cls", "loss_cls"]])


@pytest.mark.parametrize(
    "key", ["MODEL.RPN.BBOX_REG_LOSS_TYPE", "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE"]
)
def test_unknown_box_losses_are_refused_by_key(key):
    with pytest.raises(ValueError, match=f"{key}.*expected one of l1, smooth_l1, iou.* got 'wiou'"):
        make_model(**{key.replace(".", "__"): "wiou"})


def test_precomputed_proposals_have_no_rpn_pair():
    model = make_model(MODEL__PROPOSAL_GENERATOR__NAME="PrecomputedProposals")
    assert list(model.loss_weighters) == ["loss_cls-loss_box_reg"]


def test_stock_rpn_is_weighted_all_the_same():
    losses, *_ = losses_and_gradients(
        make_model(MODEL__PROPOSAL_GENERATOR__NAME="RPN"), make_batch()
    )
    weighted, *_ = losses_and_gradients(
        make_model(MODEL__PROPOSAL_GENERATOR__NAME="RPN", **WEIGHTS), make_batch()
    )
    assert list(weighted) == list(losses)


def test_each_pair_has_a_window_of_its_own():
    model = make_model("FPN", MODEL__ALWA__INTERVAL=2)
    plain = make_model("FPN", MODEL__LOSS_WEIGHTER__NAME="Fixed")
    window = {}
    for seed in range(2):
        batch = make_batch()
        losses, _, _ = losses_and_gradients(model, batch, seed)
        for key, loss in losses.items():
            window.setdefault(key, []).append(loss.item())
        losses_and_gradients(plain, batch, seed)
    for weighter in model.loss_weighters.values():
        s_cls, s_reg = (
            torch.tensor(window[key], dtype=torch.float64).std().item()
            for key in (weighter.cls_key, weighter.reg_key)
        )
        weight = s_reg / s_cls if s_cls > s_reg else 1.0
        assert float(weighter.weights[weighter.cls_key]) == pytest.approx(weight, rel=1e-9)
        assert weighter.observed[1].keys() <= {weighter.cls_key, weighter.reg_key}
    rpn, roi = model.loss_weighters.values()
    assert rpn.observed[1].keys() == set(RPN_PAIR) and roi.observed[1].keys() == {"loss_box_reg"}
    assert reset_loss_state(model) and not reset_loss_state(model)


def test_nothing_is_weighted_or_observed_in_evaluation():
    model = make_model().eval()
    model(make_batch())
    assert all(w.observed is None for w in model.loss_weighters.values())


def test_checkpoints_of_detectron2_load(tmp_path, caplog):
    assert_stock_loads(make_model("FPN", alwa=False), make_model("FPN"), tmp_path, caplog)
    assert caplog.text.count("ALWA begins anew") == 2


class OwnPredictor(FastRCNNOutputLayers):
    """A box predictor of a user's own."""


@pytest.mark.parametrize(
    "name, replaced",
    [("FPN", "box_predictor"), ("cascade", "box_predictor.1")],
)
def test_a_box_predictor_of_a_users_own_is_left_as_it_is_and_named(name, replaced, caplog):
    model = make_model(name)
    heads = model.roi_heads
    with caplog.at_level(logging.INFO):
        AlwaFastRCNNOutputLayers.replace_in(heads)
    assert not caplog.text
    stage = heads.box_predictor[1] if name == "cascade" else heads.box_predictor
    stage.__class__ = OwnPredictor
    with caplog.at_level(logging.INFO):
        AlwaFastRCNNOutputLayers.replace_in(heads)
    assert type(stage) is OwnPredictor
    assert [record.getMessage().split(", not")[0] for record in caplog.records] == [
        f"roi_heads.{replaced} is a OwnPredictor"
    ]
