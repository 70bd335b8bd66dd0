"""Times the fused losses against their peers, forward and backward, in one run.

    python benchmarks/bench_losses.py [--sizes small voc coco] [--rounds 15] [--json FILE]

Every peer's value and gradient are compared with ours before anything is timed. The peers take
turns, so that a busy machine slows all of them; a figure is the median over the rounds. Ratios
to the best peer and to a copy of the bytes that must move say more than milliseconds.
"""

import argparse
import json
import platform
import statistics
import time

import torch
import torchvision.ops
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from fvcore.nn import sigmoid_focal_loss_jit
from torch.nn import functional as F

from alwa_d2.layers import BOX_LOSS_KINDS, dense_box_loss, sigmoid_focal_loss

# Images, anchors an image, classes K, foreground anchors in all: 160 x 160 pixels, VOC at
# 608 x 1000, COCO at 800 x 1344.
SIZES = {"small": (2, 4842, 3, 70), "voc": (2, 114318, 20, 218), "coco": (2, 201600, 80, 425)}
SCALE = 1 / 100  # normaliser and weight


def make_inputs(size, device):
    """Logits (N, R, K), labels (N, R), anchors (R, 4), deltas (N, R, 4) and boxes (N, R, 4)."""
    images, anchors, classes, foreground = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    labels = torch.full((images * anchors,), classes)
    chosen = torch.randperm(len(labels), generator=generator)
    labels[chosen[:foreground]] = torch.randint(classes, (foreground,), generator=generator)
    labels[chosen[foreground : 2 * foreground]] = -1
    corners = torch.rand(anchors, 2, generator=generator) * 500
    boxes = torch.cat([corners, corners + 20 + torch.rand(anchors, 2, generator=generator) * 80], 1)
    moved = boxes + torch.randn(images, anchors, 4, generator=generator) * 4
    inputs = {
        "logits": torch.randn(images, anchors, classes, generator=generator) - 4.6,
        "labels": labels.view(images, anchors),
        "anchors": boxes,
        "deltas": torch.randn(images, anchors, 4, generator=generator) * 0.1,
        "gt_boxes": moved,
    }
    return {name: x.to(device) for name, x in inputs.items()}


def focal_peers():
    """name -> function of the inputs that gives the loss."""

    def targets(x):
        valid = x["labels"] >= 0
        target = F.one_hot(x["labels"][valid], x["logits"].shape[-1] + 1)[:, :-1]
        return x["logits"][valid], target.to(x["logits"].dtype)

    def naive(logits, labels):
        own = labels.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)
        z = torch.where(own, -logits, logits)
        loss = z.sigmoid() ** 2 * F.softplus(z) * torch.where(own, 0.25, 0.75)
        return (loss * (labels >= 0).unsqueeze(-1)).sum() * SCALE

    compiled = torch.compile(naive, dynamic=False)
    return {
        "alwa_d2": lambda x: sigmoid_focal_loss(x["logits"], x["labels"], scale=SCALE)[0],
        "Detectron2": lambda x: sigmoid_focal_loss_jit(*targets(x), 0.25, 2.0, "sum") * SCALE,
        "torchvision": lambda x: (
            torchvision.ops.sigmoid_focal_loss(*targets(x), 0.25, 2.0, "sum") * SCALE
        ),
        "torch.compile": lambda x: compiled(x["logits"], x["labels"]),
    }


def box_peers(kind):
    def foreground(x):
        return (x["labels"] >= 0) & (x["labels"] < x["logits"].shape[-1])

    def detectron2(x):
        transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
        args = ([x["deltas"]], list(x["gt_boxes"]), foreground(x))
        return _dense_box_regression_loss([x["anchors"]], transform, *args, kind) * SCALE

    peers = {
        "alwa_d2": lambda x: dense_box_loss(
            x["anchors"], x["deltas"], x["gt_boxes"], foreground(x), kind, scale=SCALE
        )[0]
    }
    if kind not in ("l1", "iou"):  # Detectron2 has no losses of these names
        peers["Detectron2"] = detectron2
    return peers


def once(function, inputs, leaf):
    """Loss, gradient, and the seconds of forward and backward."""
    x = inputs | {leaf: inputs[leaf].detach().requires_grad_()}
    synchronize = torch.cuda.synchronize if x[leaf].is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    loss = function(x)
    loss.backward()
    synchronize()
    return loss.detach(), x[leaf].grad, time.perf_counter() - start


def copy(inputs, leaf):
    """Seconds to read and write as many bytes as the gradient has."""
    source, target = inputs[leaf], torch.empty_like(inputs[leaf])
    synchronize = torch.cuda.synchronize if source.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    target.copy_(source)
    synchronize()
    return time.perf_counter() - start


def compare(peers, inputs, leaf, rounds):
    """name -> median milliseconds; the values and gradients of all peers agree."""
    loss, grad, _ = once(peers["alwa_d2"], inputs, leaf)
    for name, function in peers.items():
        say = f"{name}: {{}}".format  # the peer, before what differs
        for _ in range(2):  # compiling is not timed
            other, other_grad, _ = once(function, inputs, leaf)
        torch.testing.assert_close(other, loss, rtol=1e-3, atol=1e-4, msg=say)
        torch.testing.assert_close(other_grad, grad, rtol=1e-3, atol=1e-6, msg=say)
    seconds = {name: [] for name in (*peers, "copy")}
    for _ in range(rounds):
        for name, function in peers.items():
            seconds[name].append(once(function, inputs, leaf)[2])
        seconds["copy"].append(copy(inputs, leaf))
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "voc"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    print(f"{machine}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    print(f"{'':34}{'median ms':>10}{'/ best peer':>13}{'/ copy':>8}")
    figures = {}
    for size in args.sizes:
        inputs = make_inputs(size, device)
        cases = {"focal": (focal_peers(), "logits")}
        cases |= {kind: (box_peers(kind), "deltas") for kind in BOX_LOSS_KINDS}
        for case, (peers, leaf) in cases.items():
            times = compare(peers, inputs, leaf, args.rounds)
            figures[f"{case} {size}"] = times
            others = [times[name] for name in peers if name != "alwa_d2"]
            for name, value in times.items():
                ratio = f"{value / min(others):.2f}" if name == "alwa_d2" and others else ""
                row = f"{case + ' ' + size:18}{name:16}{value:10.3f}{ratio:>13}"
                print(f"{row}{value / times['copy']:8.1f}", flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": machine, "threads": torch.get_num_threads(), "ms": figures}, file)


if __name__ == "__main__":
    main()
