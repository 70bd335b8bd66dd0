"""What the processes of a training have in common."""

from typing import TYPE_CHECKING, Optional

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from .base import LossWeighter

Group = Optional["dist.ProcessGroup"]


def count_processes(group: Group) -> int:
    """Of a group, or of all for None; 1 where this process is in none."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return max(dist.get_world_size(group), 1)


def average(x: Tensor, group: Group) -> None:
    """Replaces `x` by its mean over the processes, in place, in one collective if there are any."""
    size = count_processes(group)
    if size > 1:
        dist.all_reduce(x, group=group)
        x.div_(size)


def check_agreement(weighter: "LossWeighter") -> None:
    """
    Compares the processes' states in one small collective.

    A training loop that loads a checkpoint on one process alone would not fail before a window's
    end, where that process would wait for the others forever.

    Args:
        weighter: its `shared_state` is compared

    Raises:
        RuntimeError: they are not the same; on all processes
    """
    if count_processes(weighter.process_group) == 1:
        return
    state = weighter.shared_state()
    if not state:
        return
    flat = torch.cat([x.double().flatten() for x in state.values()])
    own = flat.nan_to_num(-1.0)  # NaN, which no comparison finds, is "none yet"
    bounds = torch.stack([own, -own])
    dist.all_reduce(bounds, dist.ReduceOp.MAX, group=weighter.process_group)
    greatest, least = bounds[0].tolist(), (-bounds[1]).tolist()
    names = [name for name, x in state.items() for _ in range(x.numel())]
    for name, high, low in zip(names, greatest, least, strict=True):
        if high != low:
            raise RuntimeError(
                f"{type(weighter).__name__} of {' and '.join(weighter.keys)}: expected the same "
                f"state on all processes at the first step, got {name} from {low:g} to {high:g}. "
                "Load the checkpoint on every process, not on the first one alone."
            )
