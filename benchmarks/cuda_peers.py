"""CUDA kernels of other packages for the focal loss, where they are installed."""

import importlib

import torch
from focal_peers import ALPHA, GAMMA, SCALE


def cuda_peers(x):
    """name -> function of the flat logits (a list of one) that gives the loss."""
    return {
        name: peer
        for name, make in (("apex", apex_peer), ("mmcv", mmcv_peer))
        if (peer := make(x)) is not None
    }


def missing(device):
    """Lines that say which of these packages take no part, and why."""
    lines = []
    for name, module in (("apex", "apex.contrib.focal_loss"), ("mmcv", "mmcv.ops")):
        if device != "cuda":
            lines.append(f"{name}: left out, its focal loss needs a GPU")
        elif load(module) is None:
            lines.append(f"{name}: left out, {module} cannot be imported")
    return lines


def load(module):
    """The module, or None where it or what it is linked with is missing."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError):
        return None


def apex_peer(x):
    """Labels in apex's terms, -1 background and -2 ignored, are made once and not timed."""
    logits = x.logits[0]
    vector = 16 // logits.element_size()  # apex loads 16 bytes of one anchor at once
    fits = x.form == "flat" and x.classes % vector == 0 and logits.dtype != torch.bfloat16
    module = load("apex.contrib.focal_loss.focal_loss") if logits.is_cuda and fits else None
    if module is None:
        return None
    labels = torch.where(x.labels < 0, -2, torch.where(x.labels == x.classes, -1, x.labels))
    normalizer = torch.tensor([1 / SCALE], device=logits.device)

    def loss(leaves):
        return module.focal_loss(leaves[0], labels, normalizer, x.classes, ALPHA, GAMMA)

    return loss


def mmcv_peer(x):
    """Ignored anchors get weight 0 afterwards, as in mmdet."""
    on_gpu = x.form == "flat" and x.logits[0].is_cuda
    module = load("mmcv.ops") if on_gpu and x.logits[0].dtype != torch.bfloat16 else None
    if module is None:
        return None
    weights = (x.labels.view(-1, 1) >= 0).to(x.logits[0].dtype) * SCALE
    labels = x.labels.view(-1).clamp(min=0)

    def loss(leaves):
        logits = leaves[0].view(-1, x.classes)
        losses = module.sigmoid_focal_loss(logits, labels, GAMMA, ALPHA, None, "none")
        return (losses * weights).sum()

    return loss
