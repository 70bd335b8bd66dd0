"""Gradients that are computed with the loss and handed on: they are the ones that an op of its own
computes, belong to their receiver alone, and nobody keeps a second one."""

import importlib

import pytest
import torch
from conftest import REPO, random_boxes

from alwa_d2.layers import box_loss, dense_box_loss, sigmoid_focal_loss


def focal(dtype):
    logits = torch.randn(2, 50, 3).to(dtype).requires_grad_()
    labels = torch.randint(-1, 4, (2, 50))
    return [logits], lambda x: sigmoid_focal_loss(x[0], labels, scale=0.3)[0]


def focal_levels(dtype):
    logits = [torch.randn(2, 6, h, 4).to(dtype).requires_grad_() for h in (5, 2)]
    labels = torch.randint(-1, 4, (2, 56))
    scale = torch.tensor(0.3)
    return logits, lambda x: sigmoid_focal_loss(x, labels, scale=scale)[0]


def dense(dtype):
    anchors = random_boxes(50).to(dtype)
    deltas = (torch.randn(2, 50, 4) * 0.1).to(dtype).requires_grad_()
    gt = anchors + torch.randn(2, 50, 4).to(dtype)
    mask = torch.rand(2, 50) < 0.3
    return [deltas], lambda x: dense_box_loss(anchors, x[0], gt, mask, "giou", scale=0.3)[0]


def pairs(dtype):
    pred = random_boxes(20).to(dtype).requires_grad_()
    target = random_boxes(20).to(dtype)
    return [pred], lambda x: box_loss(x[0], target, "diou", "sum")


CASES = [focal, focal_levels, dense, pairs]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_gradient_of_the_op(case, dtype):
    """An incoming gradient other than 1 goes through the backward op; a power of 2 rounds nothing."""
    leaves, function = case(dtype)
    ahead = torch.autograd.grad(function(leaves), leaves)
    again = torch.autograd.grad(4 * function(leaves), leaves)
    for one, four in zip(ahead, again, strict=True):
        assert one.any()
        torch.testing.assert_close(4 * one.double(), four.double(), rtol=1e-6, atol=1e-6)


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
def test_a_step_needs_no_more_memory_than_the_gradient(dtype, monkeypatch):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    measure = importlib.import_module("measure")
    logits = torch.randn(2, 20000, 8, dtype=dtype)
    labels = torch.randint(-1, 9, (2, 20000))
    run = measure.Run(lambda leaves: sigmoid_focal_loss(leaves[0], labels, scale=0.1)[0], [logits])
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
