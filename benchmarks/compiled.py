"""What the compiled peers share: gradients from the forward pass, and anchors' places in levels."""

import torch
from inputs import ANCHORS

# Fused multiply-add, which Inductor does not use on the CPU by itself.
OPTIONS = {"cpp.enable_floating_point_contract_flag": "fast"}


class HandOn(torch.autograd.Function):
    """The loss of `function(leaves) -> (loss, gradients)`; the backward hands the latter on."""

    @staticmethod
    def forward(ctx, function, *leaves):
        loss, ctx.grads = function([x.detach() for x in leaves])
        return loss

    @staticmethod
    def backward(ctx, grad):
        # Kept by nobody else, the tensors become the leaves' gradients without a copy.
        grads, ctx.grads = ctx.grads, None
        # On CUDA a look at it would wait for the device, so that 1 is taken for granted.
        if grad.is_cuda or grad.item() == 1:
            return None, *grads
        return None, *(x * grad.to(x.dtype) for x in grads)


def rare(mask):
    """Places of the few True in a 1-dim mask; compiled code may not count on their number.

    On the CPU `nonzero` is faster on words of four, and then on those that are not 0.
    """
    if mask.is_cuda or len(mask) % 4 or len(mask) < 50000:
        found = mask.nonzero().squeeze(1)
    else:
        words = mask.view(torch.int32).nonzero().squeeze(1)
        word, byte = mask.view(-1, 4)[words].nonzero().unbind(1)
        found = words[word] * 4 + byte
    torch._dynamo.mark_dynamic(found, 0)
    return found


def in_memory_order(levels, form):
    """1-dim views of contiguous tensors in any of the forms."""
    return [(x.permute(0, 2, 3, 1) if form == "nhwc" else x).reshape(-1) for x in levels]


def like_levels(flat, levels, form):
    """The inverse: parts of a 1-dim tensor, in the levels' shapes and memory formats."""
    parts = flat.split([x.numel() for x in levels])
    if form == "nhwc":
        return [
            part.view(len(x), *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)
            for part, x in zip(parts, levels)
        ]
    return [part.view(x.shape) for part, x in zip(parts, levels)]


def places(rows, x, values):
    """Where in memory the `values` numbers of some anchors lie.

    Args:
        rows: (M,) int64, places in the flattened (N, R) labels
    Yields:
        for each level indices (M, values), clamped into it, and whether they are its own (M, 1)
    """
    steps = torch.arange(values, device=rows.device)
    if x.form == "flat":
        yield rows.unsqueeze(1) * values + steps, None
        return
    images, anchors = rows // x.labels.shape[1], rows % x.labels.shape[1]
    for h, w in x.shapes:
        inside = (anchors >= 0) & (anchors < ANCHORS * h * w)
        clamped = anchors.clamp(0, ANCHORS * h * w - 1)
        position, anchor = clamped // ANCHORS, clamped % ANCHORS
        if x.form == "nchw":
            first = (images * ANCHORS + anchor) * values * h * w + position
            yield first.unsqueeze(1) + steps * (h * w), inside.unsqueeze(1)
        else:
            first = ((images * h * w + position) * ANCHORS + anchor) * values
            yield first.unsqueeze(1) + steps, inside.unsqueeze(1)
        anchors = anchors - ANCHORS * h * w


def gather(flats, rows, x, values):
    """The numbers of some anchors (M, values), and their places in the levels one after another."""
    found = where = None
    start = 0
    for flat, (index, inside) in zip(flats, places(rows, x, values)):
        number, index = flat[index], index + start
        found = number if found is None else torch.where(inside, number, found)
        where = index if where is None else torch.where(inside, index, where)
        start += flat.numel()
    return found, where
