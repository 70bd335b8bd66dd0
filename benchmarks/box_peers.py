"""Other implementations of the box losses: Detectron2's, fvcore's, torchvision's, compiled ones.

The compiled ones are the formulas of alwa_d2.layers.reference, whose loss and gradient come from
one compiled pass over the foreground. Timed on one AVX-512 core, CIoU, from a mask, ms at small and
voc:

    gathering, loss, zeros and scattering in one compiled function      0.18   0.9
    only the loss of gathered rows compiled                             0.15   0.55
      foreground by one `nonzero` instead of `rare`                     0.15   0.71
    every anchor decoded and masked, all compiled                       0.73  20
"""

import torch
import torchvision.ops
from compiled import OPTIONS, HandOn, gather, in_memory_order, like_levels, rare
from detectron2.layers import ciou_loss, diou_loss
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from fvcore.nn import giou_loss, smooth_l1_loss
from torch.nn import functional as F

from alwa_d2.layers import box_loss, dense_box_loss, reference

NORMALIZER = 100.0
SCALE = 1 / NORMALIZER
BETA = 0.1  # of smooth_l1, so that it is another loss than l1
EPS = 1e-7


def dense_peers(x, kind, with_compiled=True):
    """name -> function of the deltas (a list) that gives the loss; `x` are the other inputs.

    Each starts from the labels, as a training step does.
    """

    def fused(deltas, scale=SCALE):
        deltas = deltas[0] if x.form == "flat" else deltas
        return dense_box_loss(
            x.anchors, deltas, x.gt_boxes, x.labels, kind,
            num_classes=x.classes, beta=BETA, scale=scale,
        )[0]  # fmt: skip

    def detectron2(deltas):
        if x.form != "flat":
            deltas = [permute_to_N_HWA_K(level, 4) for level in deltas]
        transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
        name, beta = ("smooth_l1", 0.0) if kind == "l1" else (kind, BETA)
        args = ([x.anchors], transform, deltas, list(x.gt_boxes), x.foreground(), name, beta)
        return _dense_box_regression_loss(*args) * SCALE

    peers = {"alwa_d2": fused}
    peers["alwa_d2, loss / n outside"] = lambda deltas: fused(deltas, None) / NORMALIZER
    if kind != "iou":
        peers["Detectron2"] = detectron2
    if with_compiled:
        peers["compiled, whole"] = compiled_whole(x, kind)
        if x.form == "flat":
            peers["compiled, rows"] = compiled_rows(x, kind)
    return peers


def flat_peers(target, kind, with_compiled=True):
    """name -> function of boxes or codes (a list of one (N, 4)) that gives the sum of losses."""
    peers = {"alwa_d2": lambda leaves: box_loss(leaves[0], target, kind, "sum", beta=BETA)}
    # The others compute in the inputs' dtype, and 8 bits are too few for pixels.
    for name, function in OTHERS.get(kind, lambda _: {})(target.float()).items():
        peers[name] = lambda leaves, function=function: function(leaves[0].float())
    if with_compiled:
        peers["compiled"] = compiled_pairs(target, kind)
    return peers


# kind -> function of the targets that gives name -> function of the predictions
OTHERS = {
    "l1": lambda t: {
        "fvcore": lambda x: smooth_l1_loss(x, t, 0.0, "sum"),
        "PyTorch": lambda x: F.l1_loss(x, t, reduction="sum"),
    },
    "smooth_l1": lambda t: {
        "fvcore": lambda x: smooth_l1_loss(x, t, BETA, "sum"),
        "PyTorch": lambda x: F.smooth_l1_loss(x, t, reduction="sum", beta=BETA),
    },
    "giou": lambda t: {
        "fvcore": lambda x: giou_loss(x, t, "sum"),
        "torchvision": lambda x: torchvision.ops.generalized_box_iou_loss(x, t, "sum"),
    },
    "diou": lambda t: {
        "Detectron2": lambda x: diou_loss(x, t, "sum"),
        "torchvision": lambda x: torchvision.ops.distance_box_iou_loss(x, t, "sum"),
    },
    "ciou": lambda t: {
        "Detectron2": lambda x: ciou_loss(x, t, "sum"),
        "torchvision": lambda x: torchvision.ops.complete_box_iou_loss(x, t, "sum"),
    },
}


def sum_of_rows(kind):
    """Function of (M, 4) deltas, anchors and boxes: (gradient to the deltas, loss)."""

    def loss(deltas, anchors, boxes):
        deltas, weights = deltas.float(), torch.ones(4, device=deltas.device)
        if kind in ("l1", "smooth_l1"):
            pair = deltas, reference._encode(anchors, boxes, weights)
        else:
            pair = reference._decode(anchors, deltas, weights), boxes
        return reference._pair_losses(*pair, kind, BETA, EPS).sum() * SCALE

    return torch.func.grad_and_value(loss)


def compiled_whole(x, kind):
    """All but finding the foreground is in one compiled function."""
    grad_and_loss = sum_of_rows(kind)

    def whole(flats, rows, anchors, gt_boxes):
        deltas, where = gather(flats, rows, x, 4)
        grad, loss = grad_and_loss(deltas, anchors[rows % len(anchors)], gt_boxes[rows])
        total = sum(flat.numel() for flat in flats)
        all_grads = torch.zeros(total, dtype=flats[0].dtype, device=rows.device)
        all_grads[where] = grad
        return loss, all_grads

    def loss_and_grads(deltas):
        flats = in_memory_order(deltas, x.form)
        rows = rare(x.foreground().view(-1))
        loss, grad = function(flats, rows, x.anchors, x.gt_boxes.view(-1, 4))
        return loss, like_levels(grad, deltas, x.form)

    function = torch.compile(whole, options=OPTIONS)
    return lambda deltas: HandOn.apply(loss_and_grads, *deltas)


def compiled_rows(x, kind):
    """The loss of gathered rows is compiled; the flat form alone."""

    def loss_and_grads(deltas):
        rows = rare(x.foreground().view(-1))
        flat = deltas[0].view(-1, 4)
        gathered = (flat[rows], x.anchors[rows % len(x.anchors)], x.gt_boxes.view(-1, 4)[rows])
        for some in gathered:
            torch._dynamo.mark_dynamic(some, 0)
        grad, loss = function(*gathered)
        all_grads = torch.zeros_like(flat)
        all_grads[rows] = grad
        return loss, [all_grads.view_as(deltas[0])]

    function = torch.compile(sum_of_rows(kind), options=OPTIONS)
    return lambda deltas: HandOn.apply(loss_and_grads, *deltas)


def compiled_pairs(target, kind):
    """The sum of the losses of pairs, with its gradient."""

    def loss(pred, target):
        return reference._pair_losses(pred.float(), target.float(), kind, BETA, EPS).sum()

    def loss_and_grads(leaves):
        for some in (leaves[0], target):
            torch._dynamo.mark_dynamic(some, 0)
        grad, value = function(leaves[0], target)
        return value, [grad]

    function = torch.compile(torch.func.grad_and_value(loss), options=OPTIONS)
    return lambda leaves: HandOn.apply(loss_and_grads, *leaves)
