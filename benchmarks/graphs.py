"""A training step of AlwaRetinaNet in CUDA graphs: its loss side, and all of it.

What is captured has padded ground truth, so that another batch can be copied into the same memory,
and ends before the weighter's `step`, which counts on the host: it is called after each replay.
"""

import torch
from detectron2.structures import Boxes, Instances

from alwa_d2.layers import pad_ground_truth
from alwa_d2.modeling.anchors import cat_anchors

PADDED = 32  # ground truths an image
WARM_UPS = 3  # as torch.cuda.make_graphed_callables has
REPLAYS = 50


class GraphedModel:
    """The parts of a step, each of which can be captured."""

    def __init__(self, model, batch):
        """
        Args:
            model: an AlwaRetinaNet in training mode, on its device
            batch: Detectron2's inputs
        """
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        self.batch = [{"image": x["image"].to(model.device)} for x in batch]
        self.instances = [self.pad(x["instances"].to(model.device)) for x in batch]
        with torch.no_grad():
            self.features = self.network_features()
            predictions = model.head(self.features)
        self.predictions = [[x.clone().requires_grad_() for x in levels] for levels in predictions]
        # Held here as long as a graph may read them.
        self.anchors = cat_anchors(model.anchor_generator(self.features))

    @staticmethod
    def pad(instances):
        boxes, classes = pad_ground_truth(instances.gt_boxes.tensor, instances.gt_classes, PADDED)
        return Instances(instances.image_size, gt_boxes=Boxes(boxes), gt_classes=classes)

    def network_features(self):
        images = self.model.preprocess_image(self.batch)
        features = self.model.backbone(images.tensor)
        return [features[name] for name in self.model.head_in_features]

    def losses(self, logits, deltas):
        labels, boxes, count = self.model.label_anchors([self.anchors], self.instances)
        return self.model.losses(self.anchors, logits, labels, deltas, boxes, count)

    def loss_side(self):
        """Losses, and their gradients to the head's outputs."""
        losses = self.losses(*self.predictions)
        leaves = [x for levels in self.predictions for x in levels]
        gradients = torch.autograd.grad(sum(losses.values()), leaves)
        return [*losses.values(), *gradients]

    def whole_step(self):
        """Losses, and the parameters' gradients; the optimizer has moved nothing at rate 0."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.losses(*self.model.head(self.network_features()))
        sum(losses.values()).backward()
        self.optimizer.step()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return [*losses.values(), *gradients]

    def end_iteration(self):
        self.model.loss_weighter.step()

    def saved_state(self):
        return {name: x.clone() for name, x in self.model.state_dict().items()}


def capture(model, part):
    """A graph of `part`, a method of the GraphedModel `model`, and the tensors it writes; the
    model's state is as before."""
    state = model.saved_state()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            part()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = part()
    model.model.load_state_dict(state)
    return graph, results


def check_replay(model, part):
    """Raises an AssertionError where a replay gives other losses or gradients than `part`.

    The graph is one of its own, without TF32 and with cuDNN's sums in one order. Otherwise the
    network's gradients would differ from call to call, captured or not.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
        graph, results = capture(model, part)
        state = model.saved_state()
        expected = [x.detach().clone() for x in part()]
        model.model.load_state_dict(state)
        graph.replay()
    for found, other in zip(results, expected, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-3, atol=1e-5)
    model.model.load_state_dict(state)


def milliseconds(model, step):
    """Mean time of `step` and what ends an iteration, over many in a row."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(WARM_UPS):
        step()
        model.end_iteration()
    start.record()
    for _ in range(REPLAYS):
        step()
        model.end_iteration()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / REPLAYS


def bench(size, model, batch):
    """Rows of the table of one size, printed as well."""
    graphed, rows = GraphedModel(model, batch), []
    print(f"\n{size:24}{'eager':>14}{'graph':>14}{'cut by':>10}")
    for name, part in (("loss side", graphed.loss_side), ("whole step", graphed.whole_step)):
        eager = milliseconds(graphed, part)
        try:
            graph, _ = capture(graphed, part)
        except RuntimeError as error:  # of the network: the loss side has no reason to
            if name == "loss side":
                raise
            print(f"{name:24}{eager:14.3f}  not captured: {str(error).splitlines()[0]}")
            continue
        check_replay(graphed, part)
        replay = milliseconds(graphed, graph.replay)
        rows.append({"size": size, "part": name, "ms": {"eager": eager, "graph": replay}})
        print(f"{name:24}{eager:14.3f}{replay:14.3f}{100 * (1 - replay / eager):8.1f} %")
    return rows
