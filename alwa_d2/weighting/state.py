"""Which tensors of a model may be missing in a checkpoint."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from .base import LossWeighter


def begins_anew(model: nn.Module, key: str) -> bool:
    """
    Whether a tensor starts from its initial value where a checkpoint has not got it, with a line in
    the log: a loss weighter's, or one that each process has its own value of.

    Args:
        key: its name in the model's state
    """
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        if isinstance(module, LossWeighter) and key.startswith(start):
            return True
        if key in (start + name for name in getattr(module, "rank_buffers", ())):
            return True
    return False


class LoadsStockCheckpoints:
    """
    For a Detectron2 model after it in the list of bases: `load_state_dict(..., strict=False)`, as
    Detectron2's checkpointer calls it, does not count as missing what its own models have not got.
    """

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        result = super().load_state_dict(state_dict, strict, assign)  # type: ignore[misc]
        if not strict:
            own = [key for key in result.missing_keys if begins_anew(self, key)]  # type: ignore[arg-type]
            for key in own:
                result.missing_keys.remove(key)
        return result
