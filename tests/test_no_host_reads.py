"""The loss side of every model reads nothing on the host, and launches what it says.

Labels, normaliser, weights, losses and `observe` run forward on fake CUDA tensors, and backward on
fake CPU ones, since a backward on CUDA needs a GPU. What Detectron2's own code reads is named in
docs/host_reads.md; the tests put it aside.
"""

from unittest import mock

import pytest
import torch
from torch._subclasses import FakeTensorMode

pytest.importorskip("detectron2", reason="needs Detectron2")

import test_fcos
import test_rcnn
import test_retinanet
from detectron2.modeling.roi_heads import fast_rcnn
from detectron2.structures import Boxes, Instances
from device_only import HostRead, NoHostReads, Operators, make_fake

from alwa_d2.modeling import AlwaFCOS
from alwa_d2.modeling.anchors import LevelAnchors
from alwa_d2.weighting import ALWA

LEVELS = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
IMAGES, SIZE, CLASSES = 2, 128, test_retinanet.NUM_CLASSES


def levels_of(channels, device):
    """Predictions of a head, (N, C, H, W) of each level."""
    return [torch.zeros(IMAGES, channels, h, w, device=device).requires_grad_() for h, w in LEVELS]


def anchors_of(per_position, device):
    """Anchors as they come from a generator that has made them before."""
    counts = [h * w * per_position for h, w in LEVELS]
    return LevelAnchors(torch.zeros(sum(counts), 4, device=device), counts)


def instances_of(device, counts=(3, 0)):
    return [
        Instances(
            (SIZE, SIZE),
            gt_boxes=Boxes(torch.zeros(count, 4, device=device)),
            gt_classes=torch.zeros(count, dtype=torch.int64, device=device),
        )
        for count in counts
    ]


# Each takes a model whose tensors are fake and on `device`: (what an iteration does from there on
# with its losses, tensors that get gradients). The iteration ends the weighter's window.


def retinanet(model, device):
    anchors = anchors_of(9, device)
    model.anchor_generator.forward = lambda features: anchors
    predictions = levels_of(9 * CLASSES, device), levels_of(36, device)
    instances = instances_of(device)
    model.loss_weighter._count = 1
    run = lambda: model.forward_training(None, None, predictions, instances)  # noqa: E731
    return run, sum(predictions, [])


def fcos(model, device):
    anchors = anchors_of(1, device)
    model.anchor_generator.forward = lambda features: anchors
    predictions = levels_of(CLASSES, device), levels_of(4, device), levels_of(1, device)
    instances = instances_of(device)
    model.loss_weighter._count = 1
    run = lambda: model.forward_training(None, None, predictions, instances)  # noqa: E731
    return run, sum(predictions, [])


def rpn(model, device):
    """With the sampling of anchors, which is Detectron2's, left out."""
    part, weighter = model.proposal_generator, model.loss_weighters["loss_rpn_cls-loss_rpn_loc"]
    part._subsample_labels = lambda labels: labels
    logits, deltas = levels_of(3, device), levels_of(12, device)
    anchors, instances = anchors_of(3, device), instances_of(device)
    weighter._count = 1

    def run():
        labels, boxes = part.label_and_sample_anchors(anchors, instances)
        losses = part.losses(
            anchors,
            [x.permute(0, 2, 3, 1).flatten(1) for x in logits],
            labels,
            [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas],
            boxes,
        )
        part.anchor_counts()
        return weighter(losses, part.loss_stats)

    return run, logits + deltas


def box_head(model, device):
    """From the sampled proposals on, without Detectron2's logging of accuracies."""
    predictor, count = model.roi_heads.box_predictor, 10
    weighter = model.loss_weighters["loss_cls-loss_box_reg"]
    scores, deltas = (
        torch.zeros(count, layer.out_features, device=device).requires_grad_()
        for layer in (predictor.cls_score, predictor.bbox_pred)
    )
    (proposals,) = instances_of(device, [count])
    proposals.proposal_boxes = Boxes(torch.zeros(count, 4, device=device))
    weighter._count = 1

    def run():
        with mock.patch.object(fast_rcnn, "_log_classification_stats"):
            losses = predictor.losses((scores, deltas), [proposals])
        return weighter(losses, predictor.loss_stats)

    return run, [scores, deltas]


def make_retinanet(**keys):
    return test_retinanet.make_model(**{"MODEL.ALWA.INTERVAL": 2, **keys})


def make_fcos():
    weighter = ALWA("loss_fcos_cls", "loss_fcos_loc", interval=2)
    return test_fcos.make_fcos(AlwaFCOS, loss_weighter=weighter)


def make_rcnn(**keys):
    return test_rcnn.make_model(MODEL__ALWA__INTERVAL=2, **keys)


SIDES = {
    "RetinaNet": (make_retinanet, retinanet),
    "FCOS": (make_fcos, fcos),
    "RPN": (make_rcnn, rpn),
    "RPN, anchors inside": (lambda: make_rcnn(MODEL__RPN__BOUNDARY_THRESH=0), rpn),
    "box head": (make_rcnn, box_head),
    "box head, class-agnostic": (
        lambda: make_rcnn(MODEL__ROI_BOX_HEAD__CLS_AGNOSTIC_BBOX_REG=True),
        box_head,
    ),
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", SIDES)
def test_loss_side(name, device):
    """Forward on either; backward where there is no GPU to need."""
    make, side = SIDES[name]
    model = make()
    with FakeTensorMode():
        run, inputs = side(make_fake(model, device), device)
        with NoHostReads(), mock.patch("torch.cuda.is_current_stream_capturing", bool):
            losses = run()
            assert {loss.device.type for loss in losses.values()} == {device}
            if device == "cpu":
                sum(losses.values()).backward()
                assert all(x.grad.shape == x.shape for x in inputs)
            weighters = [m for m in model.modules() if isinstance(m, ALWA)]
            assert 0 in {weighter._count for weighter in weighters}


def test_retinanets_operators():
    """From the head's outputs to the losses: what is not the weighter's is one op each."""
    model = make_retinanet()
    side, _ = retinanet(model, "cpu")
    assert operators_of(side) == [
        "alwa_d2.label_anchors",
        "aten.clone",  # the weighter's: weights that later updates leave
        "alwa_d2.loss_scales",
        "alwa_d2.sigmoid_focal_loss",
        "alwa_d2.dense_box_loss",
        "aten.div",  # what the weighter observes
        "aten.div",
    ]


def test_rpns_operators():
    """Four of ours and Detectron2's sampling; the model's weighters come later."""
    model = make_rcnn()
    part = model.proposal_generator
    part._subsample_labels = lambda labels: labels
    anchors, instances = anchors_of(3, "cpu"), instances_of("cpu")
    logits = [x.flatten(1).detach() for x in levels_of(3, "cpu")]
    deltas = [x.flatten(2).mT.reshape(IMAGES, -1, 4).detach() for x in levels_of(12, "cpu")]

    def run():
        labels, boxes = part.label_and_sample_anchors(anchors, instances)
        part.losses(anchors, logits, labels, deltas, boxes)

    assert operators_of(run) == [
        "alwa_d2.label_anchors",
        "aten.index",
        "alwa_d2.sigmoid_focal_loss",
        "alwa_d2.dense_box_loss",
    ]


def operators_of(run):
    """Names of those that `run` calls, without what weighters do with what they observe."""
    with Operators() as operators, mock.patch.object(ALWA, "observe", no_observing):
        with mock.patch.object(ALWA, "step"):
            run()
    return operators.names


def no_observing(self, losses, stats=None):
    assert set(losses) == {self.cls_key, self.reg_key}


# --- What is refused ------------------------------------------------------------------------------


def vector(device="cuda"):
    return torch.zeros(3, device=device)


def put(x, index, value):
    x[index] = value


@pytest.mark.parametrize(
    "read",
    [
        lambda: vector()[0].item(),
        lambda: vector().tolist(),
        lambda: bool(vector()[0] > 0),
        lambda: float(vector()[0]),
        lambda: int(vector("cpu")[0]),
        lambda: vector().cpu(),
        lambda: vector("cpu").to("cuda"),
        lambda: vector("cpu").cuda(non_blocking=True),
        lambda: vector().copy_(vector("cpu")),
        lambda: torch.tensor([1.0], device="cuda"),
        lambda: torch.tensor(1.0, device="cuda"),
        lambda: torch.as_tensor([1.0], device="cuda"),
        lambda: vector().new_tensor([1.0]),
        lambda: vector()[vector() > 0],
        lambda: vector("cpu")[vector("cpu") > 0],
        lambda: vector()[torch.zeros(2, dtype=torch.int64)],
        lambda: vector()[[0, 1]],
        lambda: put(vector(), vector() > 0, vector()),
        lambda: put(vector("cpu"), vector("cpu") > 0, vector("cpu")),
        lambda: vector().nonzero(),
        lambda: vector("cpu").nonzero(),
        lambda: torch.where(vector() > 0),
        lambda: vector().masked_select(vector() > 0),
        lambda: vector().unique(),
        lambda: torch.equal(vector(), vector()),
        lambda: torch.allclose(vector(), vector()),
    ],
)  # fmt: skip
def test_planted_host_reads_are_refused(read):
    with FakeTensorMode(), NoHostReads(), pytest.raises(HostRead):
        read()


def test_what_is_done_on_the_device_passes():
    with FakeTensorMode(), NoHostReads():
        x = torch.full((3,), 2.0, device="cuda") * 2 + torch.arange(3, device="cuda")
        x = torch.where(x > 0, x, 0).clamp(max=torch.tensor(7.0))
        put(x, x > 1, 3.0)  # a masked fill
        x = x[x.long()].masked_fill_(x > 0, -1).to(torch.float64)
        assert x.new_zeros(2).device == x.new_full((2,), 3).device == x.device
