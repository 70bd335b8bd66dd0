"""Each example runs, says what it should, and is right."""

import ast
import contextlib
import io
import re
import runpy

import pytest
import torch
from conftest import REPO

FOLDER = REPO / "examples"
# Those of others' libraries; train_lazy.py has tests/test_lazy_config.py, own_weighter.py
# tests/test_weighter_contract.py.
NEEDS = {
    "own_box_loss": "detectron2",
    "replace_fvcore": "fvcore",
    "torchvision_retinanet": "torchvision",
}
TESTED_HERE = ("plain_loop", *NEEDS)


@pytest.fixture(scope="module")
def example():
    """Runs an example once, as a program; gives its variables and what it printed, `printed`."""
    results = {}

    def run(name):
        if name in NEEDS:
            pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}")
        if name not in results:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                found = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
            results[name] = found | {"printed": printed.getvalue()}
        return results[name]

    return run


def test_all_examples_are_tested_and_short():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {*TESTED_HERE, "train_lazy", "own_weighter"}
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text())
        assert len(ast.get_docstring(tree).splitlines()) <= 2, path.name
        imports = sum(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) - imports <= 32, path.name


@pytest.mark.parametrize("name", TESTED_HERE)
def test_an_example_prints_one_line_with_numbers(name, example):
    assert re.fullmatch(r".+\d\.\d+.*\n", example(name)["printed"])


def test_fvcores_losses_have_the_same_values_and_gradients(example):
    found = example("replace_fvcore")
    for name, inputs in (("cls", "logits"), ("box", "boxes")):
        before, after = found[f"{name}_before"], found[f"{name}_after"]
        torch.testing.assert_close(after, before, rtol=1e-5, atol=0)
        expected, got = (torch.autograd.grad(loss, found[inputs])[0] for loss in (before, after))
        assert expected.abs().sum() > 0
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)


def assert_lowered_by_the_last_window(weighter):
    """By the ratio of the standard deviations of what the last window held."""
    cls, reg = weighter.window.std(0).tolist()
    expected = min(max(reg / cls, weighter.min_weight), 1)
    assert expected < 1 and int(weighter.slot) == 0
    weights = [float(weight) for weight in weighter.weights.values()]
    assert weights == pytest.approx([expected, 1])


def test_the_plain_loop_lowers_the_classification_weight(example):
    assert_lowered_by_the_last_window(example("plain_loop")["weighter"])


def test_torchvisions_two_losses_are_weighted(example):
    found = example("torchvision_retinanet")
    model = found["model"]
    weighter = model.head.weighter
    assert_lowered_by_the_last_window(weighter)
    assert "head.weighter.window" in model.state_dict()
    batch = [found["image"]], [found["target"]]
    weighted = model(*batch)
    weighter.eval()
    plain = model(*batch)
    weighter.train()
    assert set(weighted) == set(weighter.weights) == {"classification", "bbox_regression"}
    for key, weight in weighter.weights.items():
        torch.testing.assert_close(weighted[key], plain[key] * weight.float())


def test_the_own_box_loss_is_what_it_says_and_is_weighted(example):
    from detectron2.structures import Boxes, pairwise_iou
    from detectron2.utils.events import EventStorage

    found = example("own_box_loss")
    model = found["model"]
    assert_lowered_by_the_last_window(model.weighter)
    with EventStorage(), torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        features = [model.backbone(images)[name] for name in model.head_in_features]
        anchors = model.anchor_generator(features)
        labels, boxes = model.label_anchors(anchors, [found["truth"]])
        logits, deltas = model._transpose_dense_predictions(
            model.head(features), [model.num_classes, 4]
        )
        model.weighter.eval()
        loss = model.losses(anchors, logits, labels, deltas, boxes)["loss_box_reg"]
        model.weighter.train()
        is_object = (labels[0] >= 0) & (labels[0] < model.num_classes)
        all_anchors = Boxes.cat(anchors).tensor
        pred = model.box2box_transform.apply_deltas(torch.cat(deltas, 1)[0], all_anchors)[is_object]
        iou = pairwise_iou(Boxes(pred), found["truth"].gt_boxes)[:, 0]
    assert len(iou) > 0
    expected = (1 - iou**3).sum() / model.loss_normalizer
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
