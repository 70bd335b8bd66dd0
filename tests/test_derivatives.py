"""Derivatives that the ops do not have are refused, in the same words; a tangent is never lost."""

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from alwa_d2 import layers
from alwa_d2.layers import box_loss, dense_focal_loss, label_anchors, loss_scales

REFUSED = "differentiated once, not twice, by .*one incoming gradient at a time, .*reference has"
BOXES = torch.tensor([[0.0, 0, 10, 20], [5, 5, 15, 25], [1, 2, 3, 4]])
TARGETS = BOXES + torch.tensor([1.0, -1, 2, 3])
LABELS = torch.tensor([[0, 2, -1]])
LOGITS = torch.linspace(-2, 2, 6).reshape(1, 3, 2)
DELTAS = torch.linspace(-0.5, 0.5, 12).reshape(1, 3, 4)
ONE = torch.ones((), dtype=torch.float64)


def dense(anchors=BOXES, deltas=DELTAS, gt_boxes=TARGETS[None], scale=None, ops=layers):
    return ops.dense_box_loss(anchors, deltas, gt_boxes, LABELS, "giou", num_classes=2, scale=scale)


# For each input with a gradient: a function of the package of ops and of it, and a value.
LOSSES = {
    "pred": (lambda ops, x: ops.box_loss(x, TARGETS, "ciou", "sum"), BOXES),
    "target": (lambda ops, x: ops.box_loss(BOXES, x, "smooth_l1", "mean"), TARGETS),
    "deltas": (lambda ops, x: dense(deltas=x, ops=ops)[0], DELTAS),
    "logits": (lambda ops, x: ops.dense_focal_loss(x, LABELS)[0], LOGITS),
}
# What has a tangent in forward mode, but no gradient.
OTHERS = {
    "losses of pairs": (lambda x: box_loss(x, TARGETS, "iou"), BOXES),
    "anchors": (lambda x: dense(anchors=x)[0], BOXES),
    "gt_boxes": (lambda x: dense(gt_boxes=x)[0], TARGETS[None]),
    "scale of boxes": (lambda x: dense(scale=x)[0], ONE),
    "statistics": (lambda x: dense_focal_loss(x, LABELS)[1].sum, LOGITS),
    "scale": (lambda x: dense_focal_loss(LOGITS, LABELS, scale=x)[0], ONE),
    "levels": (
        lambda x: dense_focal_loss([LOGITS, x], torch.cat([LABELS, LABELS], 1))[0],
        LOGITS,
    ),
    "labels": (lambda x: label_anchors(x, [TARGETS], background=1, foreground=0)[1], BOXES),
    "ground truth": (lambda x: label_anchors(BOXES, [x], background=1, foreground=0)[1], TARGETS),
    "weights": (lambda x: loss_scales(torch.tensor(3), ONE.clone(), [x]), ONE),
    "normalizer": (lambda x: loss_scales(torch.tensor(3), x, update=False), ONE),
    "num_foreground": (lambda x: loss_scales(x, ONE.clone()), ONE),
}
OURS = {name: (lambda x, f=f: f(layers, x), x) for name, (f, x) in LOSSES.items()}


def dual(function, x):
    with fwd.dual_level():
        return fwd.unpack_dual(function(fwd.make_dual(x, torch.ones_like(x)))).tangent


def dual_without_gradients(function, x):
    with torch.no_grad():
        return dual(function, x)


def second(function, x):
    x = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(x), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0]


def batch_of_gradients(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x, torch.ones(3), is_grads_batched=True)[0]


def gradient_with_tangent(function, x):
    x = x.clone().requires_grad_()
    loss = function(x)
    with fwd.dual_level():
        incoming = fwd.make_dual(torch.ones_like(loss), torch.ones_like(loss))
        return torch.autograd.grad(loss, x, incoming)[0]


def gradient_by_gradient(function, x):
    x = x.clone().requires_grad_()
    loss = function(x)
    return grad(lambda g: torch.autograd.grad(loss, x, g)[0].sum())(torch.ones_like(loss))


def batch(function, x):
    return vmap(function)(torch.stack([x, x]))


FORWARD = {
    "dual": dual,
    "dual without gradients": dual_without_gradients,
    "jvp": lambda f, x: jvp(f, (x,), (torch.ones_like(x),))[1],
    "jacfwd": lambda f, x: jacfwd(f)(x),
    "vectorised": lambda f, x: torch.autograd.functional.jacobian(
        f, x, vectorize=True, strategy="forward-mode"
    ),
}
BACKWARD = {
    "grad": lambda f, x: grad(f)(x),
    "vjp": lambda f, x: vjp(f, x)[1](torch.ones(()))[0],
    "jacrev": lambda f, x: jacrev(f)(x),
    "hessian": lambda f, x: hessian(f)(x),
    "grad of a batch": lambda f, x: vmap(grad(f))(torch.stack([x, x])),
    "second": second,
    "is_grads_batched": batch_of_gradients,
    "vectorised": lambda f, x: torch.autograd.functional.jacobian(f, x, vectorize=True),
    "gradient with tangent": gradient_with_tangent,
}


@pytest.mark.parametrize("way", FORWARD)
@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_forward_mode_is_refused(name, way):
    function, x = (OURS | OTHERS)[name]
    with pytest.raises(RuntimeError, match=REFUSED):
        FORWARD[way](function, x)


@pytest.mark.parametrize("way", BACKWARD)
@pytest.mark.parametrize("name", OURS)
def test_other_derivatives_are_refused(name, way):
    with pytest.raises(RuntimeError, match=REFUSED):
        BACKWARD[way](*OURS[name])


@pytest.mark.parametrize("name", OURS)
def test_a_gradient_of_a_gradient_through_torch_func_is_refused(name):
    with pytest.raises(RuntimeError, match=REFUSED):
        gradient_by_gradient(*OURS[name])


@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_batches_are_refused(name):
    with pytest.raises(RuntimeError, match=REFUSED):
        batch(*(OURS | OTHERS)[name])


@pytest.mark.parametrize("way", [way for way in FORWARD | BACKWARD if way != "vectorised"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_reference_has_them(name, way):
    """As the message says. It is the same loss: the first derivatives are those of our backward."""
    function, x = LOSSES[name]
    found = (FORWARD | BACKWARD)[way](lambda x: function(layers.reference, x), x)
    leaf = x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(function(layers, leaf), leaf)
    expected = {
        "grad": ours, "vjp": ours, "jacrev": ours, "jacfwd": ours,
        "grad of a batch": torch.stack([ours, ours]),
        "is_grads_batched": ours.expand(3, *ours.shape),
        "dual": ours.sum(), "jvp": ours.sum(), "dual without gradients": ours.sum(),
    }.get(way)  # fmt: skip
    assert found is not None
    if expected is not None:
        # PyTorch's jvp gives some tangents in float64.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("name", [*OURS, *OTHERS])
def test_beside_a_transform_of_other_tensors_the_ops_work(name, outside):
    """A constant for the transform, whether it requires a gradient outside or not."""
    function, x = (OURS | OTHERS)[name]
    x = x.clone().requires_grad_(outside and name in OURS)
    expected = function(x)
    factor = torch.ones(3, dtype=expected.dtype)
    batch_of_factors = vmap(lambda f: f * function(x))(factor)
    assert torch.equal(batch_of_factors[2], expected)
    slope = grad(lambda f: (f * function(x)).sum())(factor[0])
    torch.testing.assert_close(slope, expected.sum())
    slope = jvp(lambda f: f * function(x), (factor[0],), (factor[1],))[1]
    assert torch.equal(slope, expected)
    if outside and name in OURS:
        gradients = [torch.autograd.grad(y, x)[0] for y in (batch_of_factors[1], function(x))]
        torch.testing.assert_close(*gradients)


def test_labels_are_detached_in_torch_func_too():
    """As with backward: no gradient flows through label_anchors."""
    name = "ground truth"
    slope = grad(lambda x: (x * OTHERS[name][0](x)[0]).sum())(TARGETS)
    assert torch.equal(slope, OTHERS[name][0](TARGETS)[0])
    leaf = TARGETS.clone().requires_grad_()
    assert not any(
        x.requires_grad for x in label_anchors(BOXES, [leaf], background=1, foreground=0)
    )


def test_a_tangent_outside_of_its_level_is_none():
    with fwd.dual_level():
        x = fwd.make_dual(BOXES, torch.ones_like(BOXES))
        with fwd._set_fwd_grad_enabled(False):
            assert box_loss(x, TARGETS, "iou").shape == (3,)
    assert torch.equal(box_loss(x, TARGETS, "iou"), box_loss(BOXES, TARGETS, "iou"))


def test_the_words_are_one():
    """Of the part in Python, which refuses second derivatives, and of the one in C++."""
    messages = set()
    for run in (lambda: second(*OURS["pred"]), lambda: dual(*OURS["logits"])):
        with pytest.raises(RuntimeError) as error:
            run()
        messages.add(str(error.value).split("\n")[0])
    assert len(messages) == 1
