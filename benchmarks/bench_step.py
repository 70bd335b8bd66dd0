"""Times a training step of Detectron2's RetinaNet and of AlwaRetinaNet, whole and by part.

    python benchmarks/bench_step.py [--sizes small voc] [--rounds 5] [--graph] [--json FILE]

Both have the same random weights (ResNet-18-FPN, configs/retina_alwa.yaml) and random images, and
take turns; a figure is the median over the rounds. Their losses and the gradients of these to the
head's outputs are compared first. The loss side is timed by itself too: anchor labelling, losses,
weighting, and the backward to the head's outputs. Making the anchors, which ours does once for each
size of image, is a line of its own. With --graph, on a GPU, it is instead our step by itself, as it
is and in CUDA graphs.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import graphs
import measure
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from alwa_d2 import add_alwa_config

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "retina_alwa.yaml"
# Images, height and width in pixels, classes, boxes an image. The model pads to multiples of 32.
SIZES = {"small": (2, 160, 160, 3, 3), "voc": (2, 608, 1000, 20, 5)}
MODELS = {"Detectron2": "RetinaNet", "alwa_d2": "AlwaRetinaNet"}

# In the order of a step.
PARTS = (
    "network, forward",
    "making anchors",
    "anchor labelling",
    "losses, forward",
    "weighting",
    "losses, backward",
    "network, backward",
    "optimizer",
)
LOSS_SIDE = ("anchor labelling", "losses, forward", "weighting", "losses, backward")


class Stopwatch:
    """Adds up what the parts of a step take, methods of objects among them."""

    def __init__(self, device):
        self.synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.seconds = Counter()

    def time(self, part, function, *args):
        self.synchronize()
        start = time.perf_counter()
        result = function(*args)
        self.synchronize()
        self.seconds[part] += time.perf_counter() - start
        return result

    def watch(self, owner, method, part):
        """Every call of `owner.method` is timed from now on."""
        function = getattr(owner, method)
        setattr(owner, method, lambda *args: self.time(part, function, *args))


class Trainee:
    """A model with its batch; all that is timed happens in `step` and `loss_side`."""

    def __init__(self, model, batch, device):
        self.model, self.batch = model, batch
        self.watch = Stopwatch(device)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        self.arguments = self.detached_arguments()
        self.watch.watch(model, "forward_training", "loss side, forward")
        self.watch.watch(model.anchor_generator, "forward", "making anchors")
        self.watch.watch(model, "label_anchors", "anchor labelling")
        if hasattr(model, "loss_weighter"):
            for method in ("observe", "step"):
                self.watch.watch(model.loss_weighter, method, "weighting")

    @torch.no_grad()
    def detached_arguments(self):
        """What DenseDetector gives to `forward_training`, without a graph."""
        images = self.model.preprocess_image(self.batch)
        features = self.model.backbone(images.tensor)
        features = [features[name] for name in self.model.head_in_features]
        instances = [x["instances"].to(self.model.device) for x in self.batch]
        return images, features, self.model.head(features), instances

    def loss_side(self):
        """Losses and their gradients to the head's outputs."""
        images, features, predictions, instances = self.arguments
        predictions = [[x.detach().requires_grad_() for x in levels] for levels in predictions]
        losses = self.model.forward_training(images, features, predictions, instances)
        self.watch.time("losses, backward", sum(losses.values()).backward)
        return losses, [x.grad for levels in predictions for x in levels]

    def step(self):
        losses = self.watch.time("forward", self.model, self.batch)
        self.watch.time("backward", sum(losses.values()).backward)
        self.watch.time("optimizer", self.optimizer.step)
        self.watch.time("optimizer", self.optimizer.zero_grad)

    def parts(self):
        """part -> milliseconds of one loss side and one step."""
        self.watch.seconds.clear()
        self.loss_side()
        side = self.watch.seconds.copy()
        self.watch.seconds.clear()
        self.step()
        step = self.watch.seconds.copy()
        inner = side["making anchors"] + side["anchor labelling"] + side["weighting"]
        side["losses, forward"] = side["loss side, forward"] - inner
        parts = {name: side[name] for name in ("making anchors", *LOSS_SIDE)} | {
            "network, forward": step["forward"] - step["loss side, forward"],
            "network, backward": step["backward"] - side["losses, backward"],
            "optimizer": step["optimizer"],
            "loss side": sum(side[name] for name in LOSS_SIDE),
            "whole step": step["forward"] + step["backward"] + step["optimizer"],
        }
        return {name: 1000 * seconds for name, seconds in parts.items()}


def make_batch(size):
    images, height, width, classes, boxes = SIZES[size]
    torch.manual_seed(0)
    batch = []
    for _ in range(images):
        corner = torch.rand(boxes, 2) * torch.tensor([width, height]) / 2
        extent = 16 + torch.rand(boxes, 2) * min(width, height) / 3
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.cat([corner, corner + extent], 1))
        instances.gt_classes = torch.randint(classes, (boxes,))
        batch.append({"image": torch.rand(3, height, width) * 255, "instances": instances})
    return batch


def make_model(architecture, size, device, *opts):
    cfg = get_cfg()
    add_alwa_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.DEVICE = device
    cfg.MODEL.RETINANET.NUM_CLASSES = SIZES[size][3]
    cfg.merge_from_list(list(opts))
    return build_model(cfg).train()


def make_trainees(size, device):
    """peer -> :class:`Trainee`, of the same weights and with the same batch."""
    batch = make_batch(size)
    trainees, weights = {}, None
    for peer, architecture in MODELS.items():
        model = make_model(architecture, size, device)
        weights = weights or model.state_dict()
        model.load_state_dict(weights, strict=False)  # only AlwaRetinaNet has a normaliser in it
        trainees[peer] = Trainee(model, batch, device)
    return trainees


def check_agreement(trainees):
    """Raises an AssertionError where losses or gradients differ; the first step is thus taken."""
    losses, grads = trainees["Detectron2"].loss_side()
    other, other_grads = trainees["alwa_d2"].loss_side()
    for name, loss in losses.items():
        torch.testing.assert_close(other[name], loss, rtol=1e-4, atol=1e-5)
    for other_grad, grad in zip(other_grads, grads, strict=True):
        torch.testing.assert_close(other_grad, grad, rtol=1e-3, atol=1e-6)


def bench(size, device, rounds):
    """Rows of the table, printed as well."""
    trainees = make_trainees(size, device)
    check_agreement(trainees)
    for trainee in trainees.values():
        trainee.parts()
    figures = {peer: [] for peer in trainees}
    for _ in range(rounds):
        for peer, trainee in trainees.items():
            figures[peer].append(trainee.parts())
    print(f"\n{size:24}" + "".join(f"{peer:>14}" for peer in trainees) + f"{'cut by':>10}")
    rows = []
    for part in (*PARTS, "loss side", "whole step"):
        ms = {peer: statistics.median(x[part] for x in figures[peer]) for peer in trainees}
        theirs, ours = ms["Detectron2"], ms["alwa_d2"]
        cut = 1 - ours / theirs if theirs else None
        rows.append({"size": size, "part": part, "ms": ms, "cut": cut})
        percent = "" if cut is None else f"{100 * cut:.1f} %"
        print(f"{part:24}{theirs:14.3f}{ours:14.3f}{percent:>10}")
    return rows


def bench_one(size, device, args):
    if args.graph:
        return graphs.bench(size, make_model("AlwaRetinaNet", size, device), make_batch(size))
    return bench(size, device, args.rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: PyTorch's")
    parser.add_argument("--kept", action="store_true", help="the allocator keeps freed blocks")
    parser.add_argument("--graph", action="store_true", help="CUDA graphs; needs a GPU")
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    if args.graph and not torch.cuda.is_available():
        sys.exit("--graph: expected a GPU, got none: CUDA graphs are measured on one")
    if args.kept:
        measure.keep_freed_blocks()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    about = measure.describe(device)
    print(", ".join(f"{key}: {value}" for key, value in about.items()))
    with EventStorage():
        rows = [row for size in args.sizes for row in bench_one(size, device, args)]
    if args.json:
        measure.write_json(args.json, **about, rows=rows)


if __name__ == "__main__":
    main()
