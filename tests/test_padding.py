"""Padded ground truth: labels, boxes and count as without it, to the bit; one label for all
foreground anchors."""

import hypothesis.strategies as st
import pytest
import torch
from conftest import random_boxes
from hypothesis import given, settings

from alwa_d2.layers import label_anchors, pad_ground_truth, reference

BACKGROUND = 5
RETINANET = dict(thresholds=[0.4, 0.5], background=BACKGROUND)
RULES = {
    "retinanet": RETINANET,
    "no_low_quality": RETINANET | dict(allow_low_quality_matches=False),
    "rpn": dict(thresholds=[0.3, 0.7], background=0, foreground=1),
    "unmatched_ignored": RETINANET | dict(labels=[-1, 0, 1]),
}
FUNCTIONS = [label_anchors, reference.label_anchors]


def grid_boxes(count, size=6):
    """Integer corners in a small field: ties, and boxes without area."""
    return torch.randint(0, size + 1, (count, 2, 2)).sort(dim=1).values.view(count, 4).float()


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def scattered(boxes, classes, size):
    """Padding between the ground truths, which keep their order; its boxes are anything."""
    index = torch.randperm(size, device=boxes.device)[: len(boxes)].sort().values
    more = grid_boxes(size).to(boxes)
    more[torch.rand(size, device=boxes.device) < 0.3] = 0
    padding = torch.full((size,), -1, device=boxes.device)
    padding[torch.rand(size, device=boxes.device) < 0.3] = -7
    return more.index_copy(0, index, boxes), padding.index_copy(0, index, classes)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    more=st.integers(0, 5),
    anchors=st.sampled_from([1, 40, 511, 700]),
    rule=st.sampled_from(sorted(RULES)),
    seed=st.integers(0, 2**32 - 1),
)
def test_padded_equals_unpadded(counts, more, anchors, rule, seed):
    torch.manual_seed(seed)
    anchors = grid_boxes(anchors)
    boxes = [grid_boxes(count) for count in counts]
    classes = [torch.randint(0, BACKGROUND, (count,)) for count in counts]
    size = max(counts) + more
    for function in FUNCTIONS:
        expected = function(anchors, boxes, classes, **RULES[rule])
        for pad in (pad_ground_truth, scattered):
            padded = [pad(*truth, size) for truth in zip(boxes, classes)]
            found = function(anchors, *map(list, zip(*padded)), **RULES[rule])
            assert_same(found, expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_empty_box_without_the_mark_is_no_padding(function, device):
    """Nothing overlaps it, so that it makes all anchors foreground; with the mark it does not."""
    anchors = random_boxes(600, dtype=torch.float32, device=device)
    boxes = torch.cat([anchors[:1], torch.zeros(1, 4, device=device)])
    for mark, everywhere in ((3, True), (-1, False)):
        classes = torch.tensor([2, mark], device=device)
        labels, _, count = function(anchors, [boxes], [classes], **RETINANET)
        assert bool((labels == 2).all()) == everywhere
        assert (count == 600) == everywhere and count >= 1


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_image_of_padding_alone_has_no_ground_truth(function, rule, device):
    anchors = random_boxes(600, dtype=torch.float32, device=device)
    padding = torch.full((3,), -1, device=device)
    labels, boxes, count = function(anchors, [anchors[:3]], [padding], **rule)
    assert (labels == rule["background"]).all() and (boxes == 0).all() and count == 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_anchors_that_overlap_nothing_get_the_first_box_that_is_no_padding(function, device):
    anchors = torch.tensor([[50.0, 50, 60, 60]], device=device)
    boxes = torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]], device=device)
    classes = torch.tensor([-1, 1, 2], device=device)
    rule = RULES["no_low_quality"]
    labels, matched, _ = function(anchors, [boxes], [classes], **rule)
    assert labels.tolist() == [[BACKGROUND]] and torch.equal(matched[0, 0], boxes[1])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_one_label_for_all_foreground_anchors(function, device):
    """With and without classes: those of the matched boxes, with `foreground` in their place."""
    anchors = random_boxes(700, dtype=torch.float32, device=device)
    boxes = [random_boxes(n, dtype=torch.float32, device=device) for n in (4, 0, 2)]
    classes = [torch.randint(0, BACKGROUND, (len(x),), device=device) for x in boxes]
    labels, matched, count = function(anchors, boxes, classes, **RETINANET)
    is_foreground = (labels >= 0) & (labels < BACKGROUND)
    labels[is_foreground] = 9
    expected = (labels, matched, count)
    assert count == is_foreground.sum() > 0
    for known in (classes, None, []):
        assert_same(function(anchors, boxes, known, **RETINANET, foreground=9), expected)


def test_one_label_needs_no_classes_but_all_or_none(device):
    boxes = [torch.zeros(2, 4, device=device)] * 2
    classes = [torch.zeros(2, dtype=torch.int64, device=device)]
    with pytest.raises(ValueError, match="gt_classes: expected 2 images as in gt_boxes, got 1"):
        label_anchors(boxes[0], boxes, classes, background=0, foreground=1)
    with pytest.raises(ValueError, match="gt_classes: expected 2 images as in gt_boxes, got 0"):
        label_anchors(boxes[0], boxes, background=0)


def test_opcheck_with_padding_and_one_label(device):
    anchors = random_boxes(300, dtype=torch.float32, device=device)
    for classes in ([torch.tensor([3, -1, 0], device=device)], []):
        args = (anchors, [anchors[:3]], classes, [0.3, 0.7], [0, -1, 1], True, 0, 1)
        torch.library.opcheck(torch.ops.alwa_d2.label_anchors.default, args)


def test_models_labels_with_padding(device):
    """AlwaRetinaNet's and AlwaRPN's, whose instances carry the mark."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    import test_rcnn
    import test_retinanet
    from detectron2.structures import Boxes, Instances

    anchors = [Boxes(random_boxes(2000, 128, torch.float32, device))]
    truths = [
        (random_boxes(n, 128, torch.float32, device), torch.randint(0, 3, (n,), device=device))
        for n in (4, 0)
    ]

    def instances(truths):
        return [Instances((128, 128), gt_boxes=Boxes(x), gt_classes=y) for x, y in truths]

    plain, padded = (
        instances(x) for x in (truths, [pad_ground_truth(*truth, 6) for truth in truths])
    )
    retinanet = test_retinanet.make_model(device=device)
    expected = retinanet.label_anchors(anchors, plain)
    assert_same(retinanet.label_anchors(anchors, padded), expected)
    rpn = test_rcnn.make_model(device=device).proposal_generator
    rpn._subsample_labels = lambda labels: labels
    expected = rpn.label_and_sample_anchors(anchors, plain)
    assert (expected[0] == 1).any()
    assert_same(rpn.label_and_sample_anchors(anchors, padded), expected)
    for x in plain:
        x.remove("gt_classes")
    assert_same(rpn.label_and_sample_anchors(anchors, plain), expected)


def test_what_padding_looks_like():
    boxes, classes = pad_ground_truth(torch.ones(1, 4), torch.tensor([7]), 3)
    assert boxes.tolist() == [[1.0] * 4, [0.0] * 4, [0.0] * 4] and classes.tolist() == [7, -1, -1]
    boxes, classes = pad_ground_truth(boxes[:0].double(), classes[:0], 1)
    assert boxes.dtype == torch.float64 and classes.tolist() == [-1]


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(ValueError, match="boxes: expected at most size = 2, got 3"):
        pad_ground_truth(torch.zeros(3, 4), torch.zeros(3).long(), 2)
    with pytest.raises(ValueError, match=r"classes: expected shape \[3\], got \[2\]"):
        pad_ground_truth(torch.zeros(3, 4), torch.zeros(2).long(), 5)
