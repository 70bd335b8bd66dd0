"""box_loss: worked values, parity, gradients, bad and extreme input."""

import math

import hypothesis.strategies as st
import pytest
import torch
from conftest import (
    BOX_KINDS,
    MODES,
    TOLERANCE,
    assert_same_bits_for_any_number_of_threads,
    in_mode,
    random_boxes,
)
from hypothesis import given, settings

from alwa_d2.layers import box_loss, reference

ON_BOXES = ("iou", "giou", "diou", "ciou")
OPS = torch.ops.alwa_d2


def gradients(loss, *inputs):
    """Gradients of a loss whose entries are weighted unevenly, so that none can hide."""
    # In float64, since a GPU rounds a quotient of float32 in another way.
    weights = torch.arange(1, loss.numel() + 1, device=loss.device, dtype=torch.float64)
    weights = weights.view_as(loss) / loss.numel()
    return torch.autograd.grad((loss * weights.to(loss.dtype)).sum(), inputs)


# Worked by hand: two boxes of 4 x 4 and 4 x 2, overlapping in 2 x 2.
#   pred (0, 0, 4, 4), target (2, 1, 6, 3): I = 2 * 2 = 4, U = 16 + 8 - 4 = 20, IoU = 0.2
#   enclosing box 6 x 4: area 24, squared diagonal 52
#   centres (2, 2) and (4, 2): squared distance 4
#   v = 4 / pi^2 (atan(4 / 2) - atan(4 / 4))^2, alpha = v / (1 - 0.2 + v)
PRED, TARGET = [0.0, 0, 4, 4], [2.0, 1, 6, 3]
V = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
WORKED = {
    "l1": 2 + 1 + 2 + 1,
    "smooth_l1": (2 - 0.75) + 2 * (0.5 * 1 / 1.5) + (2 - 0.75),  # beta 1.5: 2 is beyond, 1 below
    "iou": 0.8,
    "giou": 0.8 + (24 - 20) / 24,
    "diou": 0.8 + 4 / 52,
    "ciou": 0.8 + 4 / 52 + V * V / (0.8 + V),
}


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_worked_value(kind, device):
    pred, target = (torch.tensor([box], device=device) for box in (PRED, TARGET))
    loss = box_loss(pred, target, kind, beta=1.5)
    torch.testing.assert_close(loss.cpu(), torch.tensor([WORKED[kind]], dtype=torch.float32))


def test_worked_gradient_of_iou(device):
    """1 - I / U with I = (4 - 2) * 2: moving x2 by 1 adds 2 to I and 4 - 2 to U; x1 takes 4 off U."""
    pred = torch.tensor([PRED], device=device, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([TARGET], device=device, dtype=torch.float64)
    (grad,) = torch.autograd.grad(box_loss(pred, target, "iou", "sum", eps=0.0), pred)
    expected = [-4 * 4 / 400, -4 * 4 / 400, -(2 * 20 - 4 * 2) / 400, 4 * 4 / 400]
    torch.testing.assert_close(grad.cpu(), torch.tensor([expected], dtype=torch.float64))


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("kind", BOX_KINDS)
@pytest.mark.parametrize("n", [1, 3000])
def test_parity(kind, reduction, n, dtype, device):
    """Against the reference in float64 on the same rounded numbers; 3000 is past two pieces."""
    pred, target = (random_boxes(n).to(dtype).double().requires_grad_() for _ in range(2))
    expected = reference.box_loss(pred, target, kind, reduction, beta=0.7)
    expected_grads = gradients(expected, pred, target)
    ours = [x.detach().to(device, dtype).requires_grad_() for x in (pred, target)]
    loss = box_loss(*ours, kind, reduction, beta=0.7)
    reduced = torch.float64 if dtype == torch.float64 else torch.float32
    assert loss.dtype == (dtype if reduction == "none" else reduced)
    assert loss.shape == expected.shape
    torch.testing.assert_close(loss.cpu().double(), expected, **TOLERANCE[dtype])
    for grad, expected_grad in zip(gradients(loss, *ours), expected_grads, strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.cpu().double(), expected_grad, **TOLERANCE[dtype])


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_strided_and_mixed_input(kind, device):
    boxes = torch.cat([random_boxes(50), random_boxes(50)], 1).to(device)  # (50, 8)
    pred, target = boxes[::2, :4], boxes[::2, 4:].float()
    assert not pred.is_contiguous()
    expected = box_loss(pred.contiguous(), target.double(), kind)
    assert torch.equal(box_loss(pred, target, kind), expected)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_parity_with_fvcore_and_detectron2(reduction):
    fvcore = pytest.importorskip("fvcore.nn", reason="needs fvcore")
    detectron2 = pytest.importorskip("detectron2.layers", reason="needs Detectron2")
    theirs = {
        "l1": lambda p, t, r: fvcore.smooth_l1_loss(p, t, 0.0, r),
        "smooth_l1": lambda p, t, r: fvcore.smooth_l1_loss(p, t, 0.7, r),
        "giou": fvcore.giou_loss,
        "diou": detectron2.diou_loss,
        "ciou": detectron2.ciou_loss,
    }
    pred, target = (random_boxes(200).requires_grad_() for _ in range(2))
    with torch.no_grad():  # equal boxes, touching ones, shared sides, one inside the other, empty
        pred[:5] = torch.tensor(
            [[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [1, 1, 2, 3], [5, 5, 5, 9]]
        )
        target[:5] = torch.tensor(
            [[0.0, 0, 4, 4], [4, 0, 8, 4], [0, 2, 4, 6], [0, 0, 4, 4], [3, 3, 7, 8]]
        )
    for kind, function in theirs.items():
        expected = function(pred, target, reduction)
        if kind in ("l1", "smooth_l1"):  # fvcore's losses are one for each code, ours for each pair
            expected = {"none": lambda x: x.sum(-1), "mean": lambda x: 4 * x, "sum": lambda x: x}[
                reduction
            ](expected)
        loss = box_loss(pred, target, kind, reduction, beta=0.7)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        for ours, other in zip(
            gradients(loss, pred, target), gradients(expected, pred, target), strict=True
        ):
            torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-12)


def test_parity_with_torchvision():
    ops = pytest.importorskip("torchvision.ops", reason="needs torchvision")
    pred, target = (random_boxes(200).requires_grad_() for _ in range(2))
    for kind, function in {
        "giou": ops.generalized_box_iou_loss,
        "diou": ops.distance_box_iou_loss,
        "ciou": ops.complete_box_iou_loss,
    }.items():
        expected = function(pred, target)
        loss = box_loss(pred, target, kind)
        # Its eps stands elsewhere in some of the formulas, 1e-7 beside areas of at least 1.
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            gradients(loss, pred)[0], gradients(expected, pred)[0], rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("kind", ON_BOXES)
def test_ties_share_the_gradient(kind):
    """Equal boxes: every min and max is a tie, and autograd halves its gradient there."""
    boxes = random_boxes(20)
    pred = boxes.clone().requires_grad_()
    loss, expected = (f(pred, boxes, kind) for f in (box_loss, reference.box_loss))
    torch.testing.assert_close(
        gradients(loss, pred)[0], gradients(expected, pred)[0], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("kind", BOX_KINDS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gradcheck(kind, reduction, device):
    pred, target = (random_boxes(8).to(device).requires_grad_() for _ in range(2))
    # alpha is a constant in CIoU's gradient, which a difference of values cannot know.
    if kind != "ciou":
        assert torch.autograd.gradcheck(
            lambda p, t: box_loss(p, t, kind, reduction, beta=0.7), (pred, target)
        )


def test_every_argument_reaches_the_result():
    pred, target = random_boxes(10, size=3), random_boxes(10, size=3)
    for kind in ON_BOXES:
        assert not torch.equal(box_loss(pred, target, kind), box_loss(pred, target, kind, eps=0.1))
    smooth = [box_loss(pred, target, "smooth_l1", beta=beta) for beta in (0.0, 0.5, 1.0)]
    assert not torch.equal(smooth[0], smooth[1]) and not torch.equal(smooth[1], smooth[2])
    assert torch.equal(smooth[0], box_loss(pred, target, "l1", beta=1.0))
    assert torch.equal(smooth[0], box_loss(pred, target, "smooth_l1", beta=9e-6))


@pytest.mark.parametrize("kind", BOX_KINDS)
def test_no_pairs(kind, device, dtype):
    pred = torch.empty(0, 4, device=device, dtype=dtype, requires_grad=True)
    assert box_loss(pred, pred.detach(), kind).shape == (0,)
    for reduction in ("none", "mean", "sum"):
        loss = box_loss(pred, pred.detach(), kind, reduction)
        assert loss.sum() == 0
        (grad,) = torch.autograd.grad(loss.sum(), pred)
        assert grad.shape == (0, 4)


# --- Degenerate and extreme boxes -----------------------------------------------------------------

# Largest coordinate and smallest extent (0 apart) for which everything has to stay finite.
RANGES = {
    torch.float16: (1e4, 1e-3),
    torch.bfloat16: (1e18, 0.0),
    torch.float32: (1e18, 0.0),
    torch.float64: (1e150, 0.0),
}


def coordinate(largest, tiny):
    magnitudes = st.floats(0, largest, width=64) | st.sampled_from([largest, 1.0, 0.0])
    if tiny:
        magnitudes |= st.floats(0, 1e-30)
    return st.builds(lambda m, negative: -m if negative else m, magnitudes, st.booleans())


@st.composite
def extreme_boxes(draw, dtype):
    """Two boxes as (2, 4): ordered, empty or inverted, equal or with shared sides."""
    largest, smallest = RANGES[dtype]
    values = coordinate(largest, tiny=smallest == 0)
    boxes = []
    for _ in range(2):
        x1, y1, x2, y2 = (draw(values) for _ in range(4))
        shape = draw(
            st.sampled_from(["any", "ordered", "no width", "no height", "point", "inverted"])
        )
        if shape == "ordered":
            (x1, x2), (y1, y2) = sorted((x1, x2)), sorted((y1, y2))
        if shape == "inverted":
            (x2, x1), (y2, y1) = sorted((x1, x2)), sorted((y1, y2))
        x2 = x1 if shape in ("no width", "point") else x2
        y2 = y1 if shape in ("no height", "point") else y2
        boxes.append([x1, y1, x2, y2])
    if draw(st.booleans()):
        boxes[1] = boxes[0][:2] + boxes[1][2:]
    return torch.tensor(boxes, dtype=torch.float64).clamp(-largest, largest).to(dtype)


@pytest.mark.parametrize("kind", BOX_KINDS)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_finite_in_finite_out(kind, data):
    dtype = data.draw(st.sampled_from(list(RANGES)))
    boxes = data.draw(extreme_boxes(dtype))
    pred, target = (box.clone().requires_grad_() for box in boxes.split(1))
    for reduction in ("none", "mean", "sum"):
        loss = box_loss(pred, target, kind, reduction, beta=0.5)
        assert loss.isfinite().all(), (loss, boxes)
        for grad in torch.autograd.grad(loss.sum(), (pred, target)):
            assert grad.isfinite().all(), (grad, boxes)


def test_half_gradients_are_cut_after_the_factor():
    """Empty boxes 50 high: giou's slope is 50 / eps = 5e8, and a thousandth of it is still 5e5. An
    incoming gradient of 1e-5 takes it into the range; one of 65536 has to give infinity."""
    pred = torch.tensor([[5.0, 0, 5, 100]], dtype=torch.float16).repeat(1000, 1).requires_grad_()
    target = torch.tensor([[5.0, 0, 5, 50]], dtype=torch.float16).repeat(1000, 1)
    exact = pred.detach().double().requires_grad_()
    (expected,) = gradients(box_loss(exact, target.double(), "giou", "sum"), exact)
    assert expected.abs().max() > 1e8
    for reduction, factor in (("sum", 1e-5), ("mean", 1e-2), ("none", 6e-8)):
        loss = box_loss(pred, target, "giou", reduction)
        incoming = torch.full_like(loss, factor)
        (grad,) = torch.autograd.grad(loss, pred, incoming)
        true = expected * incoming.double().max() / (1000 if reduction == "mean" else 1)
        assert true.abs().max() < 65504
        torch.testing.assert_close(grad.double(), true, rtol=2e-3, atol=1e-3)
    loss = box_loss(pred, target, "giou", "sum")
    (grad,) = torch.autograd.grad(loss, pred)
    assert grad.abs().max() == 65504
    (grad,) = torch.autograd.grad(
        box_loss(pred, target, "giou", "sum"), pred, torch.tensor(65536.0)
    )
    assert grad.isinf().any()


@pytest.mark.parametrize("kind", ON_BOXES)
@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_degenerate_boxes_equal_the_reference(kind, data):
    """Small coordinates in float64, where the reference is finite: inverted and empty boxes too."""
    numbers = st.lists(st.integers(-4, 4), min_size=4, max_size=4)
    pred = torch.tensor([data.draw(numbers)], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([data.draw(numbers)], dtype=torch.float64)
    loss, expected = (f(pred, target, kind) for f in (box_loss, reference.box_loss))
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        gradients(loss, pred)[0], gradients(expected, pred)[0], rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("kind", BOX_KINDS)
@pytest.mark.parametrize("position", range(8))
def test_nan_in_nan_out(kind, position, device, dtype):
    boxes = torch.tensor([PRED, TARGET], dtype=dtype)
    boxes.view(-1)[position] = torch.nan
    pred = boxes[:1].to(device).requires_grad_()
    loss = box_loss(pred, boxes[1:].to(device), kind)
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    assert loss.isnan().all()
    assert grad.isnan().any()


@pytest.mark.parametrize("kind", BOX_KINDS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    numbers=st.lists(
        st.sampled_from([math.inf, -math.inf, math.nan, 0.0, 1.0, 3e38]), min_size=8, max_size=8
    )
)
def test_infinite_boxes_do_not_crash(kind, numbers):
    boxes = torch.tensor(numbers).view(2, 4)
    pred = boxes[:1].clone().requires_grad_()
    loss = box_loss(pred, boxes[1:], kind, "sum")
    loss.backward()
    if boxes.isnan().any():
        assert loss.isnan()


@pytest.mark.parametrize("function", [box_loss, reference.box_loss])
def test_without_beta_smooth_l1_is_pytorchs(function):
    """beta 1: 0.5 * 0.5^2 for the first code, |d| - 0.5 for those beyond 1."""
    pred = torch.zeros(1, 4, dtype=torch.float64)
    target = torch.tensor([[0.5, -2.0, 3.0, 0.0]], dtype=torch.float64)
    loss = function(pred, target, "smooth_l1")
    assert loss.tolist() == [0.125 + 1.5 + 2.5]
    assert loss.sum() == torch.nn.functional.smooth_l1_loss(pred, target, reduction="sum")
    assert function(pred, target, "l1").tolist() == [5.5]


# --- As an op -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("kind", BOX_KINDS)
def test_opcheck(kind, reduction, device):
    pred, target = (random_boxes(5, dtype=torch.float32, device=device) for _ in range(2))
    options = (kind, reduction, 0.5, 1e-7)
    grad = torch.ones(5 if reduction == "none" else (), device=device)
    torch.library.opcheck(OPS.box_loss_backward.default, (grad, pred, target, *options))
    args = (pred.requires_grad_(), target.requires_grad_(), *options)
    torch.library.opcheck(OPS.box_loss.default, args)


def test_bitwise_repeatable_for_any_number_of_threads():
    pred, target = (random_boxes(20000, dtype=torch.float32) for _ in range(2))
    pred.requires_grad_()

    def results():
        sums = [box_loss(pred, target, kind, "sum") for kind in BOX_KINDS]
        return [*sums, *torch.autograd.grad(sum(sums), pred)]

    assert_same_bits_for_any_number_of_threads(results)


def test_backward_twice_through_one_graph_and_never_twice_differentiable():
    pred = random_boxes(5).requires_grad_()
    loss = box_loss(pred, random_boxes(5), "ciou", "sum")
    first, second = (torch.autograd.grad(loss, pred, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (grad,) = torch.autograd.grad(loss, pred, create_graph=True)
    with pytest.raises(RuntimeError, match="once, not twice"):
        grad.sum().backward()


def test_compiles_without_graph_breaks():
    pred, target = random_boxes(5).requires_grad_(), random_boxes(5)
    compiled = torch.compile(box_loss, fullgraph=True, backend="aot_eager")
    loss, expected = (f(pred, target, "diou", "mean") for f in (compiled, box_loss))
    assert torch.equal(loss, expected)
    assert torch.equal(*(torch.autograd.grad(x, pred)[0] for x in (loss, expected)))


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(kind="wiou"), ValueError, "kind: expected one of l1, smooth_l1, iou, giou, diou, ciou, got 'wiou'"),
        (dict(beta=-1.0), ValueError, r"beta: expected 0 to 1e30, got -1"),
        (dict(beta=math.nan), ValueError, r"beta: expected 0 to 1e30, got nan"),
        (dict(kind="smooth_l1", beta=math.inf), ValueError, r"beta: expected 0 to 1e30, got inf"),
        (dict(eps=-1e-7), ValueError, r"eps: expected 0 to 1e30, got -1e-07"),
        (dict(eps=math.nan), ValueError, r"eps: expected 0 to 1e30, got nan"),
        (dict(reduction="max"), ValueError, "reduction: expected one of none, mean, sum, got 'max'"),
        (dict(pred=torch.zeros(5)), ValueError, r"pred: expected shape \(N, 4\), got \[5\]"),
        (dict(target=torch.zeros(4, 4)), ValueError, r"target: expected shape \[5, 4\], got \[4, 4\]"),
        (dict(pred=torch.zeros(5, 4, dtype=torch.int64), target=torch.zeros(5, 4, dtype=torch.int64)), TypeError, "pred: expected float64, float32, float16 or bfloat16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_refusals(change, error, words, mode):
    """In the same words for tensors without numbers."""
    arguments = dict(pred=torch.zeros(5, 4), target=torch.zeros(5, 4), kind="iou") | change
    with pytest.raises(error, match=words):
        box_loss(**in_mode(arguments, mode))


@pytest.mark.parametrize(
    "reduction, grad, error, words",
    [
        ("none", torch.ones(1), ValueError, r"grad: expected shape \[5\], got \[1\]"),
        ("sum", torch.ones(5), ValueError, r"grad: expected shape \[\], got \[5\]"),
        ("sum", torch.ones((), dtype=torch.float64), TypeError, "grad: expected dtype float32, got float64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_backward_refusals(reduction, grad, error, words, mode):
    arguments = dict(grad=grad, pred=torch.zeros(5, 4), target=torch.zeros(5, 4))
    arguments = in_mode(arguments, mode)
    with pytest.raises(error, match=words):
        OPS.box_loss_backward(**arguments, kind="iou", reduction=reduction, beta=0.0, eps=1e-7)
