"""Gradients that are computed with the loss and handed on: they are the ones that an op of its own
computes, belong to their receiver alone, and nobody keeps a second one."""

import importlib

import pytest
import torch
from conftest import REPO, random_boxes
from torch.profiler import ProfilerActivity, profile

from alwa_d2.layers import box_loss, dense_box_loss, dense_focal_loss


def focal(dtype):
    logits = torch.randn(2, 50, 3).to(dtype).requires_grad_()
    labels = torch.randint(-1, 4, (2, 50))
    return [logits], lambda x: dense_focal_loss(x[0], labels, scale=0.3)[0]


def focal_levels(dtype):
    logits = [torch.randn(2, 6, h, 4).to(dtype).requires_grad_() for h in (5, 2)]
    labels = torch.randint(-1, 4, (2, 56))
    scale = torch.tensor(0.3)
    return logits, lambda x: dense_focal_loss(x, labels, scale=scale)[0]


def dense(dtype):
    anchors = random_boxes(50).to(dtype)
    deltas = (torch.randn(2, 50, 4) * 0.1).to(dtype).requires_grad_()
    gt = anchors + torch.randn(2, 50, 4).to(dtype)
    labels = torch.where(torch.rand(2, 50) < 0.3, torch.randint(0, 3, (2, 50)), 3)
    return [deltas], lambda x: dense_box_loss(
        anchors, x[0], gt, labels, "giou", num_classes=3, scale=0.3
    )[0]


def pairs(dtype):
    pred = random_boxes(20).to(dtype).requires_grad_()
    target = random_boxes(20).to(dtype)
    return [pred], lambda x: box_loss(x[0], target, "diou", "sum")


CASES = [focal, focal_levels, dense, pairs]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def both_gradients(case, dtype, factor):
    """For an incoming gradient of `factor`: those of the backward op, which a second backward through
    the same graph uses, and those that the first one hands on."""
    leaves, function = case(dtype)
    loss = factor * function(leaves)
    ahead = torch.autograd.grad(loss, leaves, retain_graph=True)
    return torch.autograd.grad(loss, leaves), ahead


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1, 4, 2.0**-12])
def test_it_is_the_gradient_of_the_op(case, dtype, factor):
    """A power of 2 rounds nothing; in float16 both are of the op."""
    for expected, got in zip(*both_gradients(case, dtype, factor), strict=True):
        assert got.any() and got.dtype == dtype
        torch.testing.assert_close(
            got, expected, rtol=1e-15 if dtype == torch.float64 else 0, atol=0
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [1 / 3, -7.3, 1e4])
def test_another_incoming_gradient(case, dtype, factor):
    """Where the gradient is there it is multiplied, rounded once more; in float16 the op computes it
    of the product, and nothing differs."""
    rounding = torch.finfo(dtype).eps / 2
    rtol = {torch.float16: 0, torch.bfloat16: 2 * rounding}.get(dtype, 8 * rounding)
    for expected, got in zip(*both_gradients(case, dtype, factor), strict=True):
        assert got.any()
        torch.testing.assert_close(got.double(), expected.double(), rtol=rtol, atol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_only_float16_has_the_op_compute_it(case, dtype):
    leaves, function = case(dtype)
    loss = function(leaves) / 3
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        torch.autograd.grad(loss, leaves)
    ours = [event.name for event in profiled.events() if event.name.startswith("alwa_d2::")]
    assert len(ours) == 1
    assert ours[0].endswith("_loss_backward" if dtype == torch.float16 else "::_multiply_")


@pytest.mark.parametrize("case", CASES)
def test_every_backward_has_a_tensor_of_its_own(case):
    leaves, function = case(torch.float32)
    loss = function(leaves)
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
        assert a.data_ptr() != b.data_ptr()
    kept = [b.clone() for b in second]
    for a in (*first, *second):
        a.fill_(-1)
    third = torch.autograd.grad(loss, leaves)
    assert all(torch.equal(b, c) for b, c in zip(kept, third, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_graph_is_gone_after_its_backward(case):
    leaves, function = case(torch.float32)
    loss = function(leaves)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("case", CASES)
def test_it_adds_up_with_other_gradients(case):
    """The receiver is no leaf, and the loss one of two terms that it has."""
    leaves, function = case(torch.float32)
    alone = torch.autograd.grad(function([2 * x for x in leaves]), leaves)
    moved = [2 * x for x in leaves]
    (function(moved) + sum((y**2).sum() for y in moved)).backward()
    for x, grad in zip(leaves, alone, strict=True):
        torch.testing.assert_close(x.grad, grad + 8 * x.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_without_gradients_none_is_computed(case):
    leaves, function = case(torch.float32)
    with_grad = function(leaves)
    with torch.no_grad():
        without = function(leaves)
    assert with_grad.requires_grad and not without.requires_grad
    assert torch.equal(with_grad, without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n", [1, 100])
def test_a_step_needs_no_more_memory_than_the_gradient(dtype, n, monkeypatch):
    """Nor where the loss is divided outside: the gradient is multiplied in place."""
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    measure = importlib.import_module("measure")
    logits = torch.randn(2, 20000, 8, dtype=dtype)
    labels = torch.randint(-1, 9, (2, 20000))
    run = measure.Run(lambda leaves: dense_focal_loss(leaves[0], labels)[0] / n, [logits])
    gradient = logits.numel() * logits.element_size() / 2**20
    assert gradient <= run.mebibytes() <= 1.02 * gradient


def test_learnt_weights_outside_get_their_gradient():
    leaves, function = focal(torch.float32)
    weight = torch.tensor(0.5, requires_grad=True)
    loss = function(leaves)
    (loss * weight).backward()
    torch.testing.assert_close(weight.grad, loss.detach())
    half = torch.autograd.grad(function(leaves), leaves)[0] / 2
    torch.testing.assert_close(leaves[0].grad, half, rtol=1e-6, atol=1e-9)


def test_an_incoming_gradient_of_zero():
    leaves, function = focal(torch.float32)
    assert not torch.autograd.grad(0 * function(leaves), leaves)[0].any()


def test_only_some_levels_have_a_gradient():
    leaves, function = focal_levels(torch.float32)
    expected = torch.autograd.grad(function(leaves), leaves)
    some = [leaves[0].detach(), leaves[1]]
    function(some).backward()
    assert some[0].grad is None and torch.equal(leaves[1].grad, expected[1])


@pytest.mark.parametrize("case", CASES)
def test_lazily_negated_tensors(case):
    """Their memory holds the opposite of their numbers, which nobody may hand on or read past."""
    leaves, function = case(torch.float32)
    expected = torch.autograd.grad(function(leaves), leaves)
    negated = [torch._neg_view(-x.detach()).requires_grad_() for x in leaves]
    assert negated[0].is_neg()
    loss = function(negated)
    torch.testing.assert_close(loss, function(leaves))
    for grad, other in zip(torch.autograd.grad(loss, negated), expected, strict=True):
        torch.testing.assert_close(grad, other)
    minus = torch._neg_view(torch.ones(()))
    for grad, other in zip(torch.autograd.grad(function(leaves), leaves, minus), expected):
        torch.testing.assert_close(grad, -other)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("again", [False, True])
def test_a_batch_of_incoming_gradients_is_refused(case, dtype, again):
    leaves, function = case(dtype)
    loss = function(leaves)
    if again:  # nothing computed ahead is left
        torch.autograd.grad(loss, leaves, retain_graph=True)
    with pytest.raises(RuntimeError, match="take one incoming gradient at a time, not a batch"):
        torch.autograd.grad(loss, leaves, torch.ones(3), is_grads_batched=True)


def test_a_batch_of_incoming_gradients_for_losses_of_pairs():
    pred = random_boxes(20).requires_grad_()
    loss = box_loss(pred, random_boxes(20), "ciou")
    with pytest.raises(RuntimeError, match="take one incoming gradient at a time, not a batch"):
        torch.autograd.grad(loss, pred, torch.ones(3, 20), is_grads_batched=True)
