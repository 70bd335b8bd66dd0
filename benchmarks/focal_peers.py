"""Other focal losses from labels: Detectron2's, torchvision's, compiled ones.

Three compiled forms are kept whose loss and gradient come from one pass. "log" is what PyTorch's
own functions give; the others bring a polynomial and a compiler option, "negatives first" our
kernel's order of work as well. Which is the fastest depends on size and machine. Timed on one
AVX-512 core with voc inputs, in ms:

                                                                        flat   NCHW
    negatives first, then the few other rows                             3.5    3.7
      exp from a polynomial, too                                   3.2 to 3.5    3.6 to 3.9
      without fused multiply-add                                         4.4    4.5
      log(1 + e) instead of a polynomial                                 6.2    6.2
      levels joined before the pass instead of behind it                        4.8
      ignored rows masked in the pass, foreground put right in eager     9.5
    each class compared with the label                                   6.3    5.2
    softplus and powers, forward and backward by autograd                134    140

Neither a C++ wrapper (`cpp_wrapper`) nor other vectorisation of loop tails made a difference.
"""

import numpy as np
import torch
import torchvision.ops
from compiled import OPTIONS, HandOn, gather, in_memory_order, like_levels, rare
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from fvcore.nn import sigmoid_focal_loss_jit
from inputs import ANCHORS
from torch.nn import functional as F

from alwa_d2.layers import dense_focal_loss

ALPHA, GAMMA = 0.25, 2.0
NORMALIZER = 100.0
SCALE = 1 / NORMALIZER


def focal_peers(x, with_compiled=True):
    """name -> function of the logits (a list) that gives the loss; `x` are the other inputs."""

    def of_targets(function):
        def loss(logits):
            if x.form != "flat":
                logits = [permute_to_N_HWA_K(level, x.classes) for level in logits]
            valid = x.labels >= 0
            target = F.one_hot(x.labels[valid], x.classes + 1)[:, :-1].to(logits[0].dtype)
            return function(torch.cat(logits, 1)[valid], target, ALPHA, GAMMA, "sum") * SCALE

        return loss

    def fused(logits, scale=SCALE):
        logits = logits[0] if x.form == "flat" else logits
        return dense_focal_loss(logits, x.labels, alpha=ALPHA, gamma=GAMMA, scale=scale)[0]

    peers = {
        "alwa_d2": fused,
        "alwa_d2, loss / n outside": lambda logits: fused(logits, None) / NORMALIZER,
        "Detectron2": of_targets(sigmoid_focal_loss_jit),
        "torchvision": of_targets(torchvision.ops.sigmoid_focal_loss),
    }
    if with_compiled:
        peers["compiled, naive"] = compiled_naive(x)
        peers["compiled, log"] = compiled_one_pass(x, log1p_by_log, options=None)
        peers["compiled, one pass"] = compiled_one_pass(x)
        peers["compiled, negatives first"] = compiled_negatives_first(x)
    return peers


def log1p_coefficients(degree=8):
    """Of a polynomial P with log(1 + e) = e P(e) to float32 precision for e in [0, 1]."""
    nodes = (np.cos((np.arange(4000) + 0.5) / 4000 * np.pi) + 1) / 2
    return [float(c) for c in np.polyfit(nodes, np.log1p(nodes) / nodes, degree)]


LOG1P = log1p_coefficients()


def log1p_by_polynomial(e):
    value = torch.full_like(e, LOG1P[0])
    for coefficient in LOG1P[1:]:
        value = value * e + coefficient
    return value * e


def log1p_by_log(e):
    return torch.log(1 + e)  # Inductor has log in vectors, log1p not


def parts(z, log1p):
    """q = sigmoid(z), 1 - q and log(1 + e^z), with one exponential."""
    e = torch.exp(-z.abs())
    larger = 1 / (1 + e)
    smaller = e * larger
    positive = z > 0
    q, rest = torch.where(positive, larger, smaller), torch.where(positive, smaller, larger)
    return q, rest, z.clamp(min=0) + log1p(e)


def loss_and_slope(z, weight, log1p=log1p_by_polynomial):
    """Focal loss of gamma 2 and its derivative by z, each element times `weight`."""
    q, rest, cross_entropy = parts(z, log1p)
    factor = weight * q * q
    return factor * cross_entropy, factor * (q + GAMMA * rest * cross_entropy)


def of_labels(logits, labels, classes, log1p=log1p_by_polynomial):
    """Losses and derivatives by the logits; `labels` and `classes` broadcast over them."""
    own = labels == classes
    weight = torch.where(own, ALPHA * SCALE, (1 - ALPHA) * SCALE) * (labels >= 0)
    losses, slope = loss_and_slope(torch.where(own, -logits, logits), weight, log1p)
    return losses, torch.where(own, -slope, slope)


def level_labels(x):
    """The labels of each level, (N, H, W, A); of the flat form (N, R)."""
    if x.form == "flat":
        return [x.labels]
    levels = x.labels.split([ANCHORS * h * w for h, w in x.shapes], 1)
    return [level.view(-1, h, w, ANCHORS) for level, (h, w) in zip(levels, x.shapes)]


def compiled_naive(x):
    """What one writes first; the gradient by autograd."""

    def naive(logits, labels):
        if x.form != "flat":
            logits = [permute_to_N_HWA_K(level, x.classes) for level in logits]
        logits = torch.cat(logits, 1).float()
        own = labels.unsqueeze(-1) == torch.arange(x.classes, device=labels.device)
        z = torch.where(own, -logits, logits)
        loss = z.sigmoid() ** GAMMA * F.softplus(z) * torch.where(own, ALPHA, 1 - ALPHA)
        return (loss * (labels >= 0).unsqueeze(-1)).sum() * SCALE

    function = torch.compile(naive, dynamic=False)
    return lambda logits: function(logits, x.labels)


def compiled_one_pass(x, log1p=log1p_by_polynomial, options=OPTIONS):
    """Labels are brought to the logits' order; all levels in one compiled function."""

    def one_level(logits, labels):
        classes = torch.arange(x.classes, device=labels.device)
        if x.form == "nchw":
            n, _, h, w = logits.shape
            values = logits.view(n, ANCHORS, x.classes, h, w)
            labels, classes = labels.unsqueeze(2), classes.view(-1, 1, 1)
        else:
            values = logits if x.form == "flat" else logits.permute(0, 2, 3, 1)
            values = values.view(*labels.shape, x.classes)
            labels = labels.unsqueeze(-1)
        losses, slope = of_labels(values.float(), labels, classes, log1p)
        slope = slope.to(logits.dtype)
        if x.form == "nhwc":
            return losses.sum(-1).sum(), slope.flatten(3).permute(0, 3, 1, 2)
        return losses.sum(-1).sum(), slope.view(logits.shape)

    def all_levels(logits, labels):
        losses, grads = zip(*(one_level(*pair) for pair in zip(logits, labels)))
        return sum(losses), grads

    def loss_and_grads(logits):
        labels = level_labels(x)
        if x.form == "nchw":
            labels = [level.permute(0, 3, 1, 2).contiguous() for level in labels]
        return function(logits, labels)

    function = torch.compile(all_levels, dynamic=False, options=options)
    return lambda logits: HandOn.apply(loss_and_grads, *logits)


def compiled_negatives_first(x):
    """All logits count as background, which needs no label; then the other rows are put right."""
    negative = (1 - ALPHA) * SCALE

    def background(flats):
        losses, slopes = zip(*(loss_and_slope(flat.float(), negative) for flat in flats))
        slopes = [slope.to(flats[0].dtype) for slope in slopes]
        return sum(loss.sum() for loss in losses), torch.cat(slopes)

    def others(flats, rows, labels, loss, grad):
        logits, where = gather(flats, rows, x, x.classes)
        logits = logits.float()
        classes = torch.arange(x.classes, device=rows.device)
        right, slope = of_labels(logits, labels.unsqueeze(1), classes)
        wrong, _ = loss_and_slope(logits, negative)
        grad[where] = slope.to(grad.dtype)
        return loss + (right - wrong).sum()

    background = torch.compile(background, dynamic=False, options=OPTIONS)
    others = torch.compile(others, options=OPTIONS)

    def loss_and_grads(logits):
        flats = in_memory_order(logits, x.form)
        loss, grad = background(flats)
        labels = x.labels.view(-1)
        rows = rare(labels != x.classes)
        labels = labels[rows]
        torch._dynamo.mark_dynamic(labels, 0)
        loss = others(flats, rows, labels, loss, grad)
        return loss, like_levels(grad, logits, x.form)

    return lambda logits: HandOn.apply(loss_and_grads, *logits)
