"""Loss parts compile as a whole; inference is scripted, traced and exported like stock's."""

import pytest
import torch

pytest.importorskip("detectron2", reason="needs Detectron2")

import test_rcnn
import test_retinanet
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch import Tensor

MODELS = {
    "RetinaNet": lambda alwa: test_retinanet.make_model("AlwaRetinaNet" if alwa else "RetinaNet"),
    "R-CNN": lambda alwa: test_rcnn.make_model("FPN", alwa),
    "mask": lambda alwa: test_rcnn.make_model("mask", alwa),
}
FIELDS = {
    "proposal_boxes": Boxes, "objectness_logits": Tensor, "pred_boxes": Boxes, "scores": Tensor,
    "pred_classes": Tensor, "pred_masks": Tensor,
}  # fmt: skip


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def assert_same(ours, expected):
    assert ours.keys() == expected.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], expected[key], rtol=1e-6, atol=0)


def test_retinanets_losses_compile_without_a_graph_break():
    """Losses, weights and observe; two iterations with the host's step between them."""
    models = [test_retinanet.make_model(**{"MODEL.ALWA.INTERVAL": 2}) for _ in range(2)]
    losses = [models[0].losses, compiled(models[1].losses)]
    for _ in range(3):
        batch = test_retinanet.make_batch()
        results = []
        for model, function in zip(models, losses):
            images = model.preprocess_image(batch)
            features = model.backbone(images.tensor)
            features = [features[f] for f in model.head_in_features]
            logits, deltas = model.head(features)
            anchors = Boxes.cat(model.anchor_generator(features))
            truth = [x["instances"] for x in batch]
            labels, boxes, count = model.label_anchors([anchors], truth)
            results.append(function(anchors, logits, labels, deltas, boxes, count))
            model.loss_weighter.step()
        assert_same(*results)
    assert torch.equal(models[0].loss_weighter.weight_vector, models[1].loss_weighter.weight_vector)
    assert float(models[0].loss_weighter.weight_vector[0]) < 1


def test_rcnns_losses_compile_without_a_graph_break():
    model = test_rcnn.make_model("FPN", MODEL__ROI_BOX_HEAD__BBOX_REG_LOSS_TYPE="ciou")
    rpn, predictor = model.proposal_generator, model.roi_heads.box_predictor
    weighter = model.loss_weighters["loss_rpn_cls-loss_rpn_loc"]
    batch = test_rcnn.make_batch()
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    features = [features[f] for f in rpn.in_features]
    anchors = rpn.anchor_generator(features)
    with EventStorage():
        labels, boxes = rpn.label_and_sample_anchors(anchors, [x["instances"] for x in batch])
    logits, deltas = rpn.rpn_head(features)
    logits = [x.permute(0, 2, 3, 1).flatten(1) for x in logits]
    deltas = [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas]

    def rpn_part(logits, deltas):
        losses = rpn.losses(anchors, logits, labels, deltas, boxes)
        weights = weighter.weights
        weighter.observe(losses, rpn.loss_stats)
        return {key: loss * weights[key].float() for key, loss in losses.items()}

    assert_same(compiled(rpn_part)(logits, deltas), rpn_part(logits, deltas))

    classes = torch.tensor([0, 2, 3, -1])  # 3 is background
    proposals = test_rcnn.random_boxes(4, 100, torch.float32)
    inputs = (proposals, proposals + 3, torch.randn(4, 12), classes)
    torch.testing.assert_close(
        compiled(predictor.box_reg_loss)(*inputs), predictor.box_reg_loss(*inputs)
    )


def outputs(name, way, alwa):
    """What the model, put into another form, finds in an image; or the type of its refusal."""
    model = MODELS[name](alwa).eval()
    image = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    try:
        if way == "scripted":
            form = scripting_with_instances(model, FIELDS)
            inputs = [{"image": image}]
            is_dense = name == "RetinaNet"
            result = (
                form(inputs)[0] if is_dense else form.inference(inputs, do_postprocess=False)[0]
            )
            return [result.pred_boxes.tensor, result.scores, result.pred_classes]
        adapter = TracingAdapter(model, [{"image": image}])
        if way == "traced":
            return list(torch.jit.trace(adapter, adapter.flattened_inputs)(image))
        return list(torch.export.export(adapter, (image,), strict=False).module()(image))
    except Exception as error:  # of any kind: what is compared is whether stock does better
        return [type(error).__name__]


@pytest.mark.parametrize("way", ["scripted", "traced", "exported"])
@pytest.mark.parametrize("name", MODELS)
def test_inference_is_put_into_other_forms_like_stocks(name, way):
    with torch.no_grad():
        ours, stock = (outputs(name, way, alwa) for alwa in (True, False))
    assert len(ours) == len(stock)
    for x, y in zip(ours, stock):
        if isinstance(y, str):
            assert x == y
        else:
            torch.testing.assert_close(x, y, rtol=0, atol=0)
    # torch.export does not take a detector of Detectron2's as a whole.
    assert (way == "exported") == isinstance(stock[0], str), stock


def test_the_network_is_exported():
    """Backbone and head with a weighter beside them."""

    class Network(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            features = self.model.backbone(x)
            return self.model.head([features[f] for f in self.model.head_in_features])

    network = Network(MODELS["RetinaNet"](True)).eval()
    image = torch.rand(1, 3, 128, 128)
    exported = torch.export.export(network, (image,)).module()
    for ours, expected in zip(exported(image), network(image)):
        for x, y in zip(ours, expected):
            torch.testing.assert_close(x, y)
