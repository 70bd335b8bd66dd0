"""label_anchors: worked values, every bit as Detectron2's, ties, degenerate boxes, refusals."""

import math
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from conftest import MODES, assert_same_bits_for_any_number_of_threads, in_mode, random_boxes

from alwa_d2.layers import label_anchors, reference

OPS = torch.ops.alwa_d2
BACKGROUND = 5
RETINANET = dict(thresholds=[0.4, 0.5], labels=[0, -1, 1], allow_low_quality_matches=True)
RULES = {
    "retinanet": RETINANET,
    "no_low_quality": RETINANET | dict(allow_low_quality_matches=False),
    "rpn": RETINANET | dict(thresholds=[0.3, 0.7]),
    "roi_heads": dict(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    "one_threshold": dict(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=True),
    "ends_ignored": dict(
        thresholds=[0.1, 0.1, 0.3, 0.6], labels=[-1, 1, 0, 1, -1], allow_low_quality_matches=True
    ),
}  # fmt: skip


def classes_of(boxes):
    return [torch.randint(0, BACKGROUND, (len(x),), device=x.device) for x in boxes]


def detectron2_labels(anchors, gt_boxes, gt_classes, background=BACKGROUND, **rule):
    """Detectron2's own functions, in the method of its RetinaNet."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.meta_arch import RetinaNet
    from detectron2.structures import Boxes, Instances

    def keep(self, tensor):
        self.tensor = tensor

    matcher = Matcher(*(rule[key] for key in RETINANET))
    model = SimpleNamespace(anchor_matcher=matcher, num_classes=background)
    with mock.patch.object(Boxes, "__init__", keep):  # its own rounds float64 to float32
        gt_instances = [
            Instances((1, 1), gt_boxes=Boxes(boxes), gt_classes=classes)
            for boxes, classes in zip(gt_boxes, gt_classes)
        ]
        labels, boxes = RetinaNet.label_anchors(model, [Boxes(anchors)], gt_instances)
    return torch.stack(labels), torch.stack(boxes)


def assert_equals_detectron2(anchors, gt_boxes, **rule):
    """Labels, boxes and count to the bit, and those of the reference; returns the labels."""
    rule = rule or RETINANET
    gt_classes = classes_of(gt_boxes)
    expected = detectron2_labels(anchors, gt_boxes, gt_classes, **rule)
    expected += (((expected[0] >= 0) & (expected[0] < BACKGROUND)).sum(),)
    for function in (label_anchors, reference.label_anchors):
        found = function(anchors, gt_boxes, gt_classes, background=BACKGROUND, **rule)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), function.__module__
    return expected[0]


def grid_boxes(n, size=6, device="cpu", dtype=torch.float32):
    """(n, 4) boxes with integer corners in a small field: many have equal IoUs, some no area."""
    corners = torch.randint(0, size + 1, (n, 2, 2)).sort(dim=1).values
    return corners.view(n, 4).to(device, dtype)


def retinanet_anchors(height, width):
    """(R, 4) anchors of Detectron2's generator for an image of this size, as RetinaNet's."""
    generator = pytest.importorskip(
        "detectron2.modeling.anchor_generator", reason="needs Detectron2"
    )
    strides = [8, 16, 32, 64, 128]
    make = generator.DefaultAnchorGenerator(
        sizes=[[x * 2 ** (i / 3) for i in range(3)] for x in (32, 64, 128, 256, 512)],
        aspect_ratios=[[0.5, 1.0, 2.0]],
        strides=strides,
        offset=0.0,
    )
    features = [torch.zeros(1, 1, math.ceil(height / s), math.ceil(width / s)) for s in strides]
    return torch.cat([boxes.tensor for boxes in make(features)])


@pytest.mark.parametrize("low_quality", [True, False])
def test_worked_example(low_quality, device):
    """A is 4 x 4 at the origin, B 10 x 10 at (10, 10). IoUs of the anchors:

    with A: the same box 1; its upper half 8 / 16, on the threshold 0.5, so foreground; 2 x 3.5 at
    its corner 7 / 16, between the thresholds; moved down by 2: 8 / (16 + 16 - 8) = 1 / 3.
    with B: 2 x 2 at its corner 4 / 100, the highest that B has, so a low-quality match.
    """
    anchors = torch.tensor(
        [[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 2, 3.5], [0, 2, 4, 6], [10, 10, 12, 12]], device=device
    )
    a, b = [0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 20.0, 20.0]
    labels, boxes, num_foreground = label_anchors(
        anchors,
        [torch.tensor([a, b], device=device), torch.zeros(0, 4, device=device)],
        [torch.tensor([7, 3], device=device), torch.zeros(0, dtype=torch.int64, device=device)],
        allow_low_quality_matches=low_quality,
        background=20,
    )
    assert labels.tolist() == [[7, 7, -1, 20, 3 if low_quality else 20], [20] * 5]
    assert boxes.tolist() == [[a, a, a, a, b], [[0.0] * 4] * 5]
    assert num_foreground.item() == (3 if low_quality else 2)


# --- Every bit as Detectron2's --------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [random_boxes, grid_boxes])
def test_equals_detectron2(make, precision, rule, device):
    """Sizes around that of a chunk (512) and of a block (256), images without ground truth."""
    make_boxes = lambda n: make(n, dtype=precision, device=device)  # noqa: E731
    for anchors in (1, 255, 511, 512, 513, 1300):
        gt_boxes = [make_boxes(n) for n in (3, 0, 1, 40)]
        assert_equals_detectron2(make_boxes(anchors), gt_boxes, **rule)


@pytest.mark.parametrize("height, width", [(64, 64), (200, 333), (480, 640)])
def test_equals_detectron2_on_its_anchors(height, width, device):
    anchors = retinanet_anchors(height, width)
    gt_boxes = [random_boxes(n, min(height, width), torch.float32) for n in (10, 0, 3, 30)]
    gt_boxes.append(anchors[torch.randint(len(anchors), (20,))])  # IoUs of 1, and many ties
    labels = assert_equals_detectron2(anchors.to(device), [x.to(device) for x in gt_boxes])
    assert {-1, 0, BACKGROUND} <= set(labels.flatten().tolist())


def test_ties_and_thresholds_are_decided_by_every_bit(device):
    """Anchors that have, but for rounding, the same IoU with a ground truth, or a threshold's."""
    anchors = random_boxes(2000, dtype=torch.float32, device=device)
    size = anchors[:, 2:] - anchors[:, :2]
    seen = set()
    for share in (0.5, 0.4, 1 / 3):  # of a tenth of the anchors each, in width
        gt_boxes = anchors[::10].clone()
        gt_boxes[:, 2] = gt_boxes[:, 0] + size[::10, 0] * share
        labels = assert_equals_detectron2(
            anchors, [gt_boxes], **RETINANET | dict(allow_low_quality_matches=False)
        )
        seen |= set(labels[0, ::10].tolist())
        shifted = torch.arange(2000, device=device)[:, None] * 0.37 + gt_boxes[:1]
        assert_equals_detectron2(shifted, [shifted[:7] + 0.05, shifted[::300] - 0.01])
    assert -1 in seen and BACKGROUND in seen and len(seen) > 2


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_thresholds_are_rounded_to_the_anchors_dtype(precision, device):
    """An IoU of 7 / 10 in float32 is less than the float64 0.7, but on the threshold 0.7."""
    anchors = torch.tensor([[0, 0, 7, 1], [0, 0, 10, 3]], device=device, dtype=precision)
    gt_boxes = torch.tensor([[0, 0, 10, 1]], device=device, dtype=precision)
    rule = dict(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=False)
    labels = assert_equals_detectron2(anchors, [gt_boxes], **rule)
    assert labels[0, 0] >= 0 and labels[0, 0] < BACKGROUND and labels[0, 1] == -1


@pytest.mark.parametrize("seed", range(40))
def test_equals_detectron2_on_anything(seed, device):
    """Corners in any order, boxes without area, duplicates, boxes outside everything."""
    torch.manual_seed(seed)

    def anything(n):
        boxes = grid_boxes(n, size=8) + 3.7 * torch.randn(n, 4) * (torch.rand(n, 1) < 0.3)
        mixed = torch.where(torch.rand(n, 1) < 0.1, boxes[:, [2, 1, 0, 3]], boxes)
        return (mixed + 1e4 * (torch.rand(n, 1) < 0.05)).to(device)

    def repeated(x):
        return torch.cat([x, x[torch.randperm(len(x), device=x.device)[:3]]])

    anchors = anything(int(torch.randint(1, 1500, ())))
    gt_boxes = [repeated(anything(int(torch.randint(0, 20, ())))) for _ in range(4)]
    rule = list(RULES.values())[seed % len(RULES)]
    assert_equals_detectron2(anchors, gt_boxes, **rule)


def test_more_images_and_ground_truths_than_a_launch_takes(device):
    anchors = random_boxes(300, dtype=torch.float32, device=device)
    sizes = [600, *(i % 3 for i in range(130)), 257]
    gt_boxes = [random_boxes(n, dtype=torch.float32, device=device) for n in sizes]
    assert_equals_detectron2(anchors, gt_boxes)


@pytest.mark.parametrize("box", [[3.0, 3, 3, 9], [500, 500, 600, 600], [9, 9, 2, 2], [5, 0, 3, 9]])
def test_a_box_that_nothing_overlaps_makes_every_anchor_foreground(box, device):
    """Its highest IoU is 0, and so is every anchor's: no area, far away, corners in wrong order."""
    anchors = random_boxes(1100, dtype=torch.float32, device=device)
    gt_boxes = torch.cat([anchors[:2], torch.tensor([box], device=device)])
    labels = assert_equals_detectron2(anchors, [gt_boxes, gt_boxes[2:]])
    assert ((labels >= 0) & (labels < BACKGROUND)).all()
    labels = assert_equals_detectron2(anchors, [gt_boxes, gt_boxes[2:]], **RULES["no_low_quality"])
    assert (labels[1] == BACKGROUND).all()


def test_boxes_with_nan_overlap_nothing(device):
    """As in Detectron2, where an IoU with NaN in it is 0 too."""
    anchors = random_boxes(700, dtype=torch.float32, device=device)
    gt_boxes = random_boxes(8, dtype=torch.float32, device=device)
    for k in range(4):
        anchors[50 * k : 50 * k + 9, k] = math.nan
        gt_boxes[k, k] = math.nan
    rule = RULES["no_low_quality"]
    gt_classes = classes_of([gt_boxes])
    found, *_ = label_anchors(anchors, [gt_boxes], gt_classes, background=BACKGROUND, **rule)
    expected, _ = detectron2_labels(anchors, [gt_boxes], gt_classes, **rule)
    assert torch.equal(found, expected) and (found != BACKGROUND).any()


@pytest.mark.parametrize("anchors, images", [(0, 2), (7, 0), (0, 0)])
def test_no_anchors_or_no_images(anchors, images, device):
    boxes = [random_boxes(3, dtype=torch.float32, device=device)] * images
    anchors = random_boxes(anchors, dtype=torch.float32, device=device)
    for function in (label_anchors, reference.label_anchors):
        labels, found, count = function(anchors, boxes, classes_of(boxes), background=BACKGROUND)
        assert count.shape == () and count.dtype == torch.int64 and count == 0
        assert labels.shape == (images, len(anchors)) and labels.dtype == torch.int64
        assert found.shape == (images, len(anchors), 4) and found.dtype == torch.float32


def test_memory_layout_and_dtype_of_the_inputs(device):
    """Strided inputs, and ground truth in another dtype, are those numbers in the anchors' dtype."""
    anchors = random_boxes(1000, dtype=torch.float32, device=device)
    boxes = random_boxes(9, dtype=torch.float64, device=device)
    (classes,) = classes_of([boxes])
    options = dict(background=BACKGROUND, **RETINANET)
    expected = label_anchors(anchors, [boxes.float()], [classes], **options)
    strided = [torch.cat([x, x]).t().contiguous().t()[: len(x)] for x in (anchors, boxes)]
    wide = torch.stack([classes, classes], 1)[:, 0]
    assert not any(x.is_contiguous() for x in (*strided, wide))
    found = label_anchors(strided[0], [strided[1]], [wide], **options)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    half = label_anchors(anchors, [boxes.half()], [classes], **options)
    again = label_anchors(anchors, [boxes.half().float()], [classes], **options)
    assert all(torch.equal(a, b) for a, b in zip(half, again, strict=True))


def test_every_argument_reaches_the_result():
    anchors, boxes = random_boxes(500), [random_boxes(5)]
    classes = [torch.arange(5)]
    options = [
        {},
        dict(thresholds=[0.2, 0.5]),
        dict(thresholds=[0.4, 0.45]),
        dict(labels=[-1, 0, 1]),
        dict(allow_low_quality_matches=False),
        dict(background=9),
    ]
    found = [
        label_anchors(anchors, boxes, classes, **(dict(background=5) | change))[0]
        for change in options
    ]
    assert len({tuple(labels[0].tolist()) for labels in found}) == len(options)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_boxes_of_the_background_class_are_not_counted(rule, device):
    """RetinaNet's count, where classes begin with 1 by mistake."""
    anchors = random_boxes(600, dtype=torch.float32, device=device)
    boxes = [random_boxes(n, dtype=torch.float32, device=device) for n in (6, 4)]
    classes = [torch.arange(len(x), device=device) + 2 for x in boxes]
    classes[0][4:] = -1
    for function in (label_anchors, reference.label_anchors):
        labels, _, count = function(anchors, boxes, classes, background=BACKGROUND, **rule)
        assert count == ((labels >= 0) & (labels != BACKGROUND)).sum() > 0
        _, _, of_one = function(
            anchors, boxes, classes, background=BACKGROUND, foreground=0, **rule
        )
        assert of_one > count


def test_models_labels_are_detectron2s(device):
    """AlwaRetinaNet's method against RetinaNet's on one instance, for several matchers."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    from detectron2.modeling.matcher import Matcher
    from detectron2.modeling.meta_arch import RetinaNet
    from detectron2.structures import Boxes, Instances
    from test_retinanet import make_model

    model = make_model(device=device)
    levels = [Boxes(x.to(device)) for x in retinanet_anchors(128, 160).split(3000)]
    gt_instances = []
    for count in (4, 0, 1):
        boxes = random_boxes(count, 128, torch.float32, device)
        classes = torch.randint(0, 3, (count,), device=device)
        gt_instances.append(Instances((128, 160), gt_boxes=Boxes(boxes), gt_classes=classes))
    for rule in RULES.values():
        model.anchor_matcher = Matcher(*(rule[key] for key in RETINANET))
        expected = RetinaNet.label_anchors(model, levels, gt_instances)
        *found, num_foreground = model.label_anchors(levels, gt_instances)
        labels = torch.stack(expected[0])
        assert num_foreground == ((labels >= 0) & (labels < model.num_classes)).sum()
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, torch.stack(theirs))


def test_another_matcher_labels_retinanets_anchors(device):
    """One of a user's own, which is called as RetinaNet calls it; padding is left out before."""
    pytest.importorskip("detectron2", reason="needs Detectron2")
    from detectron2.modeling.matcher import Matcher
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage
    from test_retinanet import make_batch, make_model

    class WithoutBackground(Matcher):
        def __call__(self, quality):
            index, labels = super().__call__(quality)
            return index, labels.where(labels != 0, -1)

    ours, stock = (make_model(name, device) for name in ("AlwaRetinaNet", "RetinaNet"))
    batch, losses = make_batch([3, 0, 2]), {}
    padding = Instances((128, 128), gt_boxes=Boxes(torch.zeros(1, 4)))
    padding.gt_classes = torch.tensor([-1])
    for model in (stock, ours):
        model.anchor_matcher = WithoutBackground(*(RETINANET[key] for key in RETINANET))
        with EventStorage():
            losses[model] = model(batch)
        batch[0]["instances"] = Instances.cat([batch[0]["instances"], padding])
    for key, loss in losses[ours].items():
        torch.testing.assert_close(loss, losses[stock][key], rtol=1e-5, atol=1e-8)


# --- As an op -------------------------------------------------------------------------------------


def inputs(device="cpu"):
    anchors = random_boxes(600, dtype=torch.float32, device=device)
    boxes = [random_boxes(n, dtype=torch.float32, device=device) for n in (4, 0, 2)]
    return anchors, boxes, classes_of(boxes)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(requires_grad, device):
    anchors, boxes, classes = inputs(device)
    for x in (anchors, *boxes):
        x.requires_grad_(requires_grad)
    args = (anchors, boxes, classes, [0.4, 0.5], [0, -1, 1], True, BACKGROUND)
    torch.library.opcheck(OPS.label_anchors.default, args)
    assert not any(x.requires_grad for x in OPS.label_anchors(*args))


def test_bitwise_repeatable_for_any_number_of_threads():
    anchors = random_boxes(20000, dtype=torch.float32)
    boxes = [random_boxes(n, dtype=torch.float32) for n in (10, 0, 25)]
    boxes[0][3] = 0  # a low-quality match with every anchor of the image
    classes = classes_of(boxes)
    assert_same_bits_for_any_number_of_threads(
        lambda: list(label_anchors(anchors, boxes, classes, background=BACKGROUND))
    )


def test_compiles_without_graph_breaks():
    anchors, boxes, classes = inputs()

    def foreground(anchors, boxes, classes):
        labels, matched, _ = label_anchors(anchors, boxes, classes, background=BACKGROUND)
        return (labels >= 0) & (labels != BACKGROUND), matched + 1

    compiled = torch.compile(foreground, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(
        compiled(anchors, boxes, classes), foreground(anchors, boxes, classes)
    ):
        assert torch.equal(ours, expected)


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(anchors=torch.zeros(6)), ValueError, r"anchors: expected shape \(R, 4\), got \[6\]"),
        (dict(anchors=torch.zeros(6, 5)), ValueError, r"anchors: expected shape \(R, 4\), got \[6, 5\]"),
        (dict(anchors=torch.zeros(6, 4).half()), TypeError, "anchors: expected float64 or float32, got float16"),
        (dict(gt_classes=[]), ValueError, "gt_classes: expected 1 images as in gt_boxes, got 0"),
        (dict(gt_boxes=[torch.zeros(2, 3)]), ValueError, r"gt_boxes: expected shape \(G, 4\), got \[2, 3\]"),
        (dict(gt_boxes=[torch.zeros(2, 4).long()]), TypeError, "gt_boxes: expected float64, float32, float16 or bfloat16, got int64"),
        (dict(gt_classes=[torch.zeros(2)]), TypeError, "gt_classes: expected int64, got float32"),
        (dict(gt_classes=[torch.zeros(3).long()]), ValueError, r"gt_classes: expected shape \[2\], got \[3\]"),
        (dict(thresholds=[]), ValueError, "thresholds: expected 1 to 8 numbers, got 0"),
        (dict(thresholds=[0.1] * 9), ValueError, "thresholds: expected 1 to 8 numbers, got 9"),
        (dict(thresholds=[0.5, 0.4]), ValueError, r"thresholds: expected positive numbers in ascending order, got \[0.5, 0.4\]"),
        (dict(thresholds=[0.0, 0.4]), ValueError, "thresholds: expected positive numbers in ascending order"),
        (dict(thresholds=[0.1, math.nan]), ValueError, "thresholds: expected positive numbers in ascending order"),
        (dict(labels=[0, 1]), ValueError, "labels: expected 3 numbers, one more than thresholds, got 2"),
        (dict(labels=[0, 1, 2]), ValueError, "labels: expected each to be -1, 0 or 1, got 2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_refusals(change, error, words, mode):
    """In the same words for tensors without numbers."""
    arguments = dict(
        anchors=torch.zeros(6, 4),
        gt_boxes=[torch.zeros(2, 4)],
        gt_classes=[torch.zeros(2, dtype=torch.int64)],
        background=1,
    )
    label_anchors(**in_mode(arguments, mode))
    arguments |= change
    with pytest.raises(error, match=words):
        label_anchors(**in_mode(arguments, mode))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_is_not_waited_for():
    anchors, boxes, classes = inputs("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        label_anchors(anchors, boxes, classes, background=BACKGROUND)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_and_cpu_together_are_refused():
    anchors, boxes, classes = inputs("cuda")
    with pytest.raises(ValueError, match="gt_boxes: expected device cuda:0 as anchors, got cpu"):
        label_anchors(anchors, [x.cpu() for x in boxes], classes, background=BACKGROUND)
