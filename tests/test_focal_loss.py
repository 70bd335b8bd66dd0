"""dense_focal_loss: worked values, parity, gradients, bad and extreme input."""

import math

import hypothesis.strategies as st
import pytest
import torch
from conftest import (
    LEVEL_SHAPES,
    MODES,
    TOLERANCE,
    assert_same_bits_for_any_number_of_threads,
    assert_same_sums,
    flatten_levels,
    has_cuda_kernels,
    in_mode,
)
from hypothesis import given, settings

from alwa_d2 import layers
from alwa_d2.layers import LossStats, dense_focal_loss, reference

OPS = torch.ops.alwa_d2

# What those read who take the function for fvcore's or torchvision's.
ONE_HOT = r"one-hot targets are for sigmoid_focal_loss of fvcore and torchvision.*targets.argmax"

NUM_ANCHORS = 123  # of the three levels, three anchors a position


def head_outputs(device="cpu", dtype=torch.float64, images=3, num_classes=4):
    """Logits as levels (N, A * K, H, W), and labels of all sorts."""
    levels = [
        torch.randn(images, 3 * num_classes, h, w, dtype=torch.float64) * 3 for h, w in LEVEL_SHAPES
    ]
    labels = torch.randint(-1, num_classes + 1, (images, NUM_ANCHORS))
    return [level.to(device, dtype).requires_grad_() for level in levels], labels.to(device)


def fvcore_loss(logits, labels, alpha=0.25, gamma=2.0):
    """As Detectron2's RetinaNet calls it: one-hot targets of the valid anchors."""
    fvcore = pytest.importorskip("fvcore.nn", reason="needs fvcore")
    valid = labels >= 0
    num_classes = logits.shape[-1]
    target = torch.nn.functional.one_hot(labels[valid], num_classes + 1)[:, :-1].to(logits.dtype)
    return fvcore.sigmoid_focal_loss(logits[valid], target, alpha, gamma, reduction="sum")


def test_worked_value(device):
    """One anchor of class 0 among two, logits 0: p = 1/2 for both, cross entropy log 2 each.

    alpha 0.25, gamma 2: 0.25 * (1/2)^2 log 2 + 0.75 * (1/2)^2 log 2 = log 2 / 4. A background anchor
    has 0.75 twice: 3 log 2 / 8. The ignored one counts nothing.
    """
    logits = torch.zeros(1, 3, 2, device=device)
    loss, stats = dense_focal_loss(logits, torch.tensor([[0, 2, -1]], device=device))
    own, background = math.log(2) / 4, 3 * math.log(2) / 8
    assert float(loss) == pytest.approx(own + background)
    expected = [2, own + background, own**2 + background**2, own, background]
    # On a GPU exp and 1 / x have relative errors of 2^-22 and 2^-23: a loss, which has p squared, has
    # twice half of the one and all of the other, and its square twice that.
    rel = 2 * (2**-22 + 2 * 2**-23) + 1e-6 if has_cuda_kernels(device) else 1e-6
    assert stats.values.tolist() == pytest.approx(expected, rel=rel)
    assert float(stats.mean) == pytest.approx((own + background) / 2)
    assert float(stats.std) == pytest.approx((background - own) / 2)


def test_worked_gradient(device):
    """gamma 0 without alpha is binary cross entropy: derivative p - t."""
    logits = torch.tensor([[[0.0, math.log(3)]]], device=device, requires_grad=True)
    loss, _ = dense_focal_loss(
        logits, torch.tensor([[1]], device=device), alpha=-1, gamma=0, scale=2.0
    )
    (grad,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(grad.cpu(), torch.tensor([[[2 * 0.5, 2 * (0.75 - 1)]]]))


@pytest.mark.parametrize(
    "alpha, gamma", [(0.25, 2.0), (-1.0, 0.0), (0.0, 1.0), (0.6, 3.5), (1.0, 0.5)]
)
@pytest.mark.parametrize("num_classes", [1, 4, 20])
def test_parity(alpha, gamma, num_classes, dtype, device):
    """Against the reference in float64 on the same rounded logits."""
    levels, labels = head_outputs(device, dtype, num_classes=num_classes)
    exact = [level.detach().double().cpu().requires_grad_() for level in levels]
    options = dict(alpha=alpha, gamma=gamma, scale=0.3)
    expected, expected_stats = reference.dense_focal_loss(exact, labels.cpu(), **options)
    loss, stats = dense_focal_loss(levels, labels, **options)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(loss.cpu().double(), expected, **TOLERANCE[dtype])
    torch.testing.assert_close(stats.values.cpu(), expected_stats.values, **TOLERANCE[dtype])
    grads = torch.autograd.grad(loss, levels)
    for grad, other in zip(grads, torch.autograd.grad(expected, exact), strict=True):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad.cpu().double(), other, **TOLERANCE[dtype])


@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (-1.0, 0.0), (0.6, 3.5)])
def test_parity_with_fvcore_and_torchvision(alpha, gamma):
    levels, labels = head_outputs(dtype=torch.float32)
    logits = flatten_levels(levels, 4).detach().requires_grad_()
    expected = fvcore_loss(logits, labels, alpha, gamma)
    loss, _ = dense_focal_loss(logits, labels, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    ours, theirs = (torch.autograd.grad(x, logits)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

    ops = pytest.importorskip("torchvision.ops", reason="needs torchvision")
    valid = labels >= 0
    target = torch.nn.functional.one_hot(labels[valid], 5)[:, :-1].float()
    other = ops.sigmoid_focal_loss(logits[valid], target, alpha, gamma, reduction="sum")
    torch.testing.assert_close(loss, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_gradcheck(gamma, device):
    levels, labels = head_outputs(device, images=1, num_classes=2)
    scale = torch.tensor(0.7, device=device, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *x: dense_focal_loss(x, labels, gamma=gamma, scale=scale)[0], levels
    )


@pytest.mark.parametrize("num_classes", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 80, 91, 2049])
@pytest.mark.parametrize("labels_are", ["mixed", "all foreground", "background"])
def test_any_number_of_classes(num_classes, labels_are, device):
    """Around the widths of registers, of partial sums and of a block of logits."""
    logits = torch.randn(2, 37, num_classes, dtype=torch.float64) * 3
    lowest = -1 if labels_are == "mixed" else 0
    labels = torch.randint(lowest, num_classes + (labels_are == "mixed"), (2, 37))
    if labels_are == "background":
        labels = torch.full_like(labels, num_classes)
    x = logits.float().to(device).requires_grad_()
    loss, stats = dense_focal_loss(x, labels.to(device))
    exact = logits.float().double().requires_grad_()
    expected, expected_stats = reference.dense_focal_loss(exact, labels)
    torch.testing.assert_close(loss.cpu().double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stats.values.cpu(), expected_stats.values, rtol=1e-5, atol=1e-6)
    grad, other = (torch.autograd.grad(*pair)[0] for pair in ((loss, x), (expected, exact)))
    torch.testing.assert_close(grad.cpu().double(), other, rtol=1e-5, atol=1e-6)


def check_levels(shapes, num_classes, images, spoilt, form, device, gamma=2.0):
    """Random levels of three anchors a position against the reference; `spoilt` of the anchors are
    no background."""
    labels = torch.full((images, 3 * sum(h * w for h, w in shapes)), num_classes)
    some = torch.randperm(labels.numel())[:spoilt]
    labels.view(-1)[some] = torch.randint(-1, num_classes, (spoilt,))
    levels = [torch.randn(images, 3 * num_classes, h, w) * 2 - 3 for h, w in shapes]
    exact = flatten_levels(levels, num_classes).double().requires_grad_()
    expected, expected_stats = reference.dense_focal_loss(exact, labels, gamma=gamma)
    (expected_grad,) = torch.autograd.grad(expected, exact)
    if form == "flat":
        levels = [flatten_levels(levels, num_classes)]
    elif form == "nhwc":
        levels = [x.contiguous(memory_format=torch.channels_last) for x in levels]
    levels = [x.to(device).requires_grad_() for x in levels]
    inputs = levels[0] if form == "flat" else levels
    loss, stats = dense_focal_loss(inputs, labels.to(device), gamma=gamma)
    torch.testing.assert_close(loss.cpu().double(), expected.detach(), rtol=1e-5, atol=0)
    torch.testing.assert_close(stats.values.cpu(), expected_stats.values, rtol=1e-5, atol=1e-9)
    grads = torch.autograd.grad(loss, levels)
    grad = grads[0] if form == "flat" else flatten_levels(grads, num_classes)
    torch.testing.assert_close(grad.cpu().double(), expected_grad, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", ["flat", "nchw", "nhwc"])
@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_many_anchors(form, gamma, device):
    """Several pieces, images and levels that end within a piece."""
    check_levels(((61, 67), (31, 34), (1, 1)), 20, 3, 500, form, device, gamma)


@pytest.mark.parametrize("form", ["flat", "nhwc"])
@pytest.mark.parametrize("num_classes", [8, 80, 84, 640, 644])
def test_chunks_of_rows(num_classes, form, device):
    """On CUDA a warp takes 32, 8, 7 or 1 anchors at a time; 640 classes are the most. Some end
    within a chunk, and a block's share within a level."""
    check_levels(((13, 11), (3, 2), (1, 1)), num_classes, 2, 100, form, device)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("label", [0, 1])
def test_precision_of_single_logits(gamma, label):
    """Relative to the reference in float64: what larger terms of a sum would hide."""
    labels = torch.tensor([[label]])
    for logit in torch.linspace(-30, 30, 401):
        single = logit.view(1, 1, 1).clone().requires_grad_()
        double = single.detach().double().requires_grad_()
        loss, _ = dense_focal_loss(single, labels, gamma=gamma)
        expected, _ = reference.dense_focal_loss(double, labels, gamma=gamma)
        if expected > 1e-30:
            torch.testing.assert_close(loss.double(), expected, rtol=2e-5, atol=0)
            grad, other = (torch.autograd.grad(*p)[0] for p in ((loss, single), (expected, double)))
            torch.testing.assert_close(grad.double(), other, rtol=2e-5, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("share", [-1.0, -0.6, 0.6, 1.0])
def test_the_largest_numbers(gamma, share, dtype, device):
    """The slope of a logit far on the wrong side is its weight, whatever its size."""
    logit = share * torch.finfo(dtype).max
    logits = torch.full((1, 1, 1), logit, dtype=dtype, device=device, requires_grad=True)
    own = 0 if logit < 0 else 1
    loss, _ = dense_focal_loss(logits, torch.tensor([[own]], device=device), gamma=gamma)
    (grad,) = torch.autograd.grad(loss, logits)
    weight = -0.25 if logit < 0 else 0.75
    torch.testing.assert_close(grad.item(), weight, rtol=1e-3, atol=0)
    assert loss.item() == pytest.approx(abs(weight * logit), rel=1e-2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_levels_equal_the_flat_form(memory_format, device):
    levels, labels = head_outputs(device, torch.float32)
    levels = [x.detach().contiguous(memory_format=memory_format).requires_grad_() for x in levels]
    loss, stats = dense_focal_loss(levels, labels)
    flat = flatten_levels(levels, 4).detach().requires_grad_()
    flat_loss, flat_stats = dense_focal_loss(flat, labels)
    assert_same_sums((loss, stats), (flat_loss, flat_stats), device)
    grads = torch.autograd.grad(loss, levels)
    assert all(g.is_contiguous(memory_format=memory_format) for g in grads)
    assert torch.equal(flatten_levels(grads, 4), torch.autograd.grad(flat_loss, flat)[0])


def test_strided_input(device):
    """Every second anchor and class of a larger tensor, labels strided too."""
    logits = torch.randn(2, 40, 8, device=device)[:, ::2, ::2].requires_grad_()
    labels = torch.randint(-1, 5, (20, 2), device=device).t()
    loss, stats = dense_focal_loss(logits, labels)
    copy = logits.detach().contiguous().requires_grad_()
    expected, expected_stats = dense_focal_loss(copy, labels.contiguous())
    assert_same_sums((loss, stats), (expected, expected_stats), device)
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, copy)[0])


def test_levels_without_channels_have_no_anchors(device):
    logits = [torch.zeros(2, 0, 4, 4, device=device).requires_grad_()]
    labels = torch.zeros(2, 0, dtype=torch.int64, device=device)
    loss, stats = dense_focal_loss(logits, labels)
    assert float(loss) == 0 and float(stats.count) == 0
    assert torch.autograd.grad(loss, logits)[0].shape == (2, 0, 4, 4)


def test_scale_is_a_number_or_a_tensor(device):
    levels, labels = head_outputs(device)
    plain, stats = dense_focal_loss(levels, labels)
    for scale in (
        0.25,
        torch.tensor(0.25, device=device),
        torch.tensor(0.25, device=device).double(),
    ):
        loss, same = dense_focal_loss(levels, labels, scale=scale)
        torch.testing.assert_close(loss, 0.25 * plain)
        assert torch.equal(same.values, stats.values)


def test_every_argument_reaches_the_result():
    levels, labels = head_outputs()
    losses = [
        dense_focal_loss(levels, labels, **options)[0]
        for options in ({}, dict(alpha=0.5), dict(alpha=-1), dict(gamma=1.0), dict(scale=0.5))
    ]
    assert len({loss.item() for loss in losses}) == len(losses)


@pytest.mark.parametrize("images, label", [(0, 0), (2, -1)])
def test_no_valid_anchor(images, label, device, dtype):
    levels, labels = head_outputs(device, dtype, images=images)
    loss, stats = dense_focal_loss(levels, torch.full_like(labels, label))
    assert loss == 0
    assert stats.values.tolist() == [0, 0, 0, math.inf, -math.inf]
    for grad, level in zip(torch.autograd.grad(loss, levels), levels, strict=True):
        assert grad.shape == level.shape and not grad.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "shape, num_classes, form",  # on CUDA each way of reading, and a slice of the classes each
    [((4, 4), 9, "nchw"), ((3, 3), 9, "nchw"), ((4, 4), 8, "nhwc"), ((4, 4), 3, "flat")],
)
def test_ignored_anchors_are_not_looked_at(shape, num_classes, form, bad, device):
    """Whichever of its logits is no number, an ignored anchor has no gradient."""
    count = 2 * shape[0] * shape[1]
    labels = torch.randint(0, num_classes + 1, (1, count), device=device)
    labels[:, ::2] = -1
    flat = torch.randn(1, count, num_classes, device=device)
    flat[:, 2::4] += 100
    spoilt = flat.clone()
    for i, r in enumerate(range(0, count, 2)):
        spoilt[0, r, i % num_classes] = bad
    found = []
    for values in (flat, spoilt):
        x = values
        if form != "flat":
            x = values.view(1, *shape, 2 * num_classes).permute(0, 3, 1, 2)
            planes = form == "nchw"
            x = x.contiguous(
                memory_format=torch.contiguous_format if planes else torch.channels_last
            )
        x = x.detach().requires_grad_()
        loss, stats = dense_focal_loss([x], labels)
        (grad,) = torch.autograd.grad(loss, x)
        grad = grad if form == "flat" else flatten_levels([grad], num_classes)
        found.append((loss, stats.values, grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not found[1][2][labels == -1].any() and found[1][2][labels != -1].all()


def test_half_gradients_are_rounded_once():
    """At RetinaNet's prior a background gradient over the normaliser is about 2e-8, which fp16 cannot
    hold: GradScaler's factor, in the incoming gradient, has to act before rounding."""
    prior = -math.log((1 - 0.01) / 0.01)
    logits = torch.full((1, 100, 4), prior, dtype=torch.float16, requires_grad=True)
    labels = torch.full((1, 100), 4)
    exact = logits.detach().double().requires_grad_()
    factor = 65536.0
    for x in (logits, exact):
        loss, _ = dense_focal_loss(x, labels, scale=1 / 3000)
        (loss * factor).backward()
    unscaled = exact.grad / factor
    assert 0 < unscaled.max() < 6e-8 and not unscaled.half().float().sub(unscaled).eq(0).all()
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-3, atol=0)
    assert (logits.grad > 0).all()


# --- Extreme logits -------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.data())
def test_finite_in_finite_out(data):
    dtype = data.draw(
        st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16])
    )
    largest = {torch.float64: 1e300, torch.float16: 6e4}.get(dtype, 1e37)
    values = st.floats(-largest, largest) | st.floats(-100, 100) | st.floats(-1e-30, 1e-30)
    logits = data.draw(st.lists(values, min_size=4, max_size=4))
    logits = torch.tensor(logits, dtype=torch.float64).clamp(-largest, largest).to(dtype)
    logits = logits.view(1, 2, 2).requires_grad_()
    gamma = data.draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
    labels = torch.tensor([[0, 2]])
    loss, stats = dense_focal_loss(logits, labels, gamma=gamma)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and stats.sum.isfinite() and stats.max.isfinite(), logits
    assert grad.isfinite().all(), (logits, grad)


@pytest.mark.parametrize("logit", [-200.0, -100.0, -20.0, 20.0, 100.0, 200.0])
def test_far_logits_keep_their_precision(logit):
    """float32 against float64: nothing is lost to 1 - p or to log(0)."""
    results = []
    for dtype in (torch.float32, torch.float64):
        logits = torch.full((1, 2, 1), logit, dtype=dtype, requires_grad=True)
        loss, _ = dense_focal_loss(logits, torch.tensor([[0, 1]]))
        results.append((loss.double(), torch.autograd.grad(loss, logits)[0].double()))
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-37)


def test_nan_in_nan_out(device, dtype):
    logits = torch.zeros(1, 3, 2, device=device, dtype=dtype)
    logits[0, 1, 0] = torch.nan
    logits.requires_grad_()
    loss, stats = dense_focal_loss(logits, torch.tensor([[0, 1, 2]], device=device))
    assert loss.isnan() and stats.values[1:].isnan().all() and stats.count == 3
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.isnan().sum() == 1 and grad[0, 1, 0].isnan()


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_logits_do_not_crash(value):
    logits = torch.full((1, 2, 2), value, requires_grad=True)
    loss, _ = dense_focal_loss(logits, torch.tensor([[0, 2]]))
    loss.backward()
    assert loss == math.inf


# --- As an op -------------------------------------------------------------------------------------


def test_opcheck(device):
    levels, labels = head_outputs(device, torch.float32)
    detached = [level.detach() for level in levels]
    one = torch.ones((), device=device)
    scale = torch.tensor(0.5, device=device, dtype=torch.float64)
    for args in ((scale,), (None, 0.5)):
        torch.library.opcheck(OPS.sigmoid_focal_loss.default, (levels, labels, 0.25, 2.0, *args))
        torch.library.opcheck(
            OPS.sigmoid_focal_loss_backward.default, (one, detached, labels, 0.25, 2.0, *args)
        )


def test_bitwise_repeatable_for_any_number_of_threads():
    levels, labels = head_outputs(dtype=torch.float32, images=100)

    def results():
        loss, stats = dense_focal_loss(levels, labels)
        return [loss, stats.values, *torch.autograd.grad(loss, levels)]

    assert_same_bits_for_any_number_of_threads(results)


def test_backward_twice_through_one_graph_and_never_twice_differentiable():
    levels, labels = head_outputs()
    loss, _ = dense_focal_loss(levels, labels)
    first, second = (torch.autograd.grad(loss, levels, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    (grad,) = torch.autograd.grad(loss, levels[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once, not twice"):
        grad.sum().backward()


def test_compiles_without_graph_breaks():
    levels, labels = head_outputs(dtype=torch.float32)

    def total(levels):
        loss, stats = dense_focal_loss(levels, labels, scale=0.5)
        return loss, stats.std

    loss, std = torch.compile(total, fullgraph=True, backend="aot_eager")(levels)
    expected, expected_std = total(levels)
    assert torch.equal(loss, expected) and torch.equal(std, expected_std)
    grads = (torch.autograd.grad(x, levels) for x in (loss, expected))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_statistics_are_frozen_tensors_on_the_device(device):
    levels, labels = head_outputs(device)
    _, stats = dense_focal_loss(levels, labels)
    assert isinstance(stats, LossStats) and stats.values.device.type == device.type
    assert stats.values.shape == (5,) and stats.values.dtype == torch.float64
    for name in ("count", "sum", "sum_of_squares", "min", "max", "mean", "std"):
        assert getattr(stats, name).shape == ()
    with pytest.raises(AttributeError):
        stats.values = None


# --- Forms ----------------------------------------------------------------------------------------


def test_the_old_name_is_the_same_function():
    assert layers.sigmoid_focal_loss is dense_focal_loss
    assert reference.sigmoid_focal_loss is reference.dense_focal_loss


@pytest.mark.parametrize("function", [dense_focal_loss, reference.dense_focal_loss])
def test_anchors_without_images(function, device):
    """(R, K) with (R,): the worked example."""
    logits = torch.zeros(3, 2, device=device, requires_grad=True)
    loss, stats = function(logits, torch.tensor([0, 2, -1], device=device))
    assert float(loss) == pytest.approx(5 * math.log(2) / 8)
    assert float(stats.count) == 2
    (grad,) = torch.autograd.grad(loss, logits)
    assert grad.shape == (3, 2) and grad[:2].all() and not grad[2].any()


@pytest.mark.parametrize("form", ["as Detectron2 makes them", "views"])
@pytest.mark.parametrize("num_classes", [1, 4, 20])
def test_flat_levels(form, num_classes, dtype, device):
    """A list of (N, HWA, K), which Detectron2's models make: the levels' own loss and gradient."""
    levels, labels = head_outputs(device, dtype, num_classes=num_classes)
    if form == "views":
        flat = [x.detach().transpose(0, 1).flatten(1).view(-1, 3, num_classes) for x in levels]
        flat = [x.transpose(0, 1).requires_grad_() for x in flat]
        together = torch.cat(flat, 1).detach().requires_grad_()
        labels = labels[:, :1].expand(3, together.shape[1]).contiguous()
    else:
        flat = [flatten_levels([x], num_classes).detach().requires_grad_() for x in levels]
        together = flatten_levels(levels, num_classes).detach().requires_grad_()
    loss, stats = dense_focal_loss(flat, labels, scale=0.5)
    expected, expected_stats = dense_focal_loss(together, labels, scale=0.5)
    assert_same_sums((loss, stats), (expected, expected_stats), device)
    grads = torch.cat(torch.autograd.grad(loss, flat), 1)
    # On CUDA levels that lie otherwise in memory have another kernel.
    exact = TOLERANCE[dtype] if has_cuda_kernels(device) else dict(rtol=0, atol=0)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, together)[0], **exact)
    other, other_stats = reference.dense_focal_loss(flat, labels, scale=0.5)
    torch.testing.assert_close(loss.double(), other.double(), **TOLERANCE[torch.float32])
    torch.testing.assert_close(stats.values, other_stats.values, **TOLERANCE[torch.float32])


# --- Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, error, words",
    [
        (dict(labels=torch.zeros(2, 6, dtype=torch.int32)), TypeError, "labels: expected int64"),
        (dict(labels=torch.zeros(6, dtype=torch.int64)), ValueError, r"labels: expected shape \(N, R\), got \[6\]"),
        (dict(logits=torch.zeros(2, 5, 3)), ValueError, r"logits: expected the values of 6 anchors .* got shapes \[2, 5, 3\]"),
        (dict(logits=torch.zeros(3, 6, 3)), ValueError, r"logits: expected 2 images as in labels, got shape \[3, 6, 3\]"),
        (dict(logits=[torch.zeros(2, 7, 1, 2)]), ValueError, r"A \* K channels\), got shapes \[2, 7, 1, 2\]"),
        (dict(logits=[torch.zeros(2, 6, 2, 2)]), ValueError, "logits: expected the values of 6 anchors"),
        (dict(logits=[torch.zeros(2, 6, 1, 2), torch.zeros(2, 6, 0, 2).half()]), TypeError, "logits: expected one dtype on all levels"),
        (dict(logits=torch.zeros(2, 6, 3, dtype=torch.int64)), TypeError, "logits: expected float64, float32, float16 or bfloat16"),
        (dict(logits=[torch.zeros(2, 0, 1, 2)]), ValueError, "logits: expected the values of 6 anchors"),
        (dict(logits=[torch.zeros(2, 4, 3), torch.zeros(2, 3, 3)]), ValueError, r"logits: expected the values of 6 anchors .* got shapes \[2, 4, 3\], \[2, 3, 3\]"),
        (dict(logits=[torch.zeros(2, 4, 3), torch.zeros(2, 2, 4)]), ValueError, "logits: expected the values of 6 anchors"),
        (dict(logits=[torch.zeros(2, 4, 3), torch.zeros(2, 6, 1, 1)]), ValueError, r"logits: expected one \(N, R, K\) tensor, or levels .* got \[2, 6, 1, 1\]"),
        (dict(logits=torch.zeros(6, 3), labels=torch.zeros(5, dtype=torch.int64)), ValueError, "logits: expected the values of 5 anchors"),
        (dict(logits=torch.zeros(6), labels=torch.zeros(1, 6, dtype=torch.int64)), ValueError, r"logits: expected one \(N, R, K\) tensor"),
        (dict(labels=torch.zeros(2, 6, 3)), TypeError, rf"labels: expected int64, got float32; {ONE_HOT}"),
        (dict(labels=torch.zeros(2, 6, 3, dtype=torch.bool)), TypeError, rf"labels: expected int64, got bool; {ONE_HOT}"),
        (dict(labels=torch.zeros(2, 6, 3, dtype=torch.int64)), ValueError, rf"labels: expected one for each anchor, got shape \[2, 6, 3\]; {ONE_HOT}"),
        (dict(logits=torch.zeros(6, 3), labels=torch.zeros(6, 3)), TypeError, rf"labels: expected int64, got float32; {ONE_HOT}"),
        (dict(logits=torch.zeros(6, 3), labels=torch.zeros(6, 3, dtype=torch.int64)), ValueError, rf"labels: expected one for each anchor, got shape \[6, 3\]; {ONE_HOT}"),
        (dict(alpha=2.0), ValueError, "alpha: expected 0 to 1, or -1 for no weights, got 2"),
        (dict(alpha=-0.25), ValueError, "alpha: expected 0 to 1, or -1 for no weights, got -0.25"),
        (dict(alpha=math.nan), ValueError, "alpha: expected 0 to 1, or -1 for no weights, got nan"),
        (dict(gamma=math.nan), ValueError, "gamma: expected 0 to 1e30, got nan"),
        (dict(gamma=-1.0), ValueError, "gamma: expected 0 to 1e30, got -1"),
        (dict(gamma=math.inf), ValueError, "gamma: expected 0 to 1e30, got inf"),
        (dict(scale=torch.ones(2)), ValueError, r"scale: expected a 0-dim tensor, got shape \[2\]"),
        (dict(scale=torch.ones((), requires_grad=True)), ValueError, "scale: expected a detached tensor"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", MODES)
def test_refusals(change, error, words, mode):
    """In the same words for tensors without numbers."""
    arguments = (
        dict(logits=torch.zeros(2, 6, 3), labels=torch.zeros(2, 6, dtype=torch.int64)) | change
    )
    with pytest.raises(error, match=words):
        dense_focal_loss(**in_mode(arguments, mode))


@pytest.mark.cpu_kernels  # on CUDA a device assertion
@pytest.mark.parametrize("label", [-2, 4])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match=rf"labels: expected -1 .* 3 \(background\), got {label}"):
        dense_focal_loss(torch.zeros(1, 2, 3), torch.tensor([[0, label]]))
