"""Whose state a checkpoint holds: several methods have buffers of the same names."""

import logging
import zlib
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

METHOD_ID = "method_id"


class HasMethodId(nn.Module):
    """
    Saves a number for the method and its losses beside their state, and begins anew where a state
    has another number. A state without one, of an older checkpoint, is taken.
    """

    keys: tuple[str, ...]

    @property
    def method_id(self) -> int:
        return zlib.crc32(" ".join(self.identity()).encode())

    def identity(self) -> tuple[str, ...]:
        """What must be the same for a state to mean the same."""
        return (type(self).__name__, *self.keys)

    def reset(self) -> bool:
        raise NotImplementedError

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if any(key.startswith(prefix) for key in destination):  # else there is no state
            destination[prefix + METHOD_ID] = torch.tensor(self.method_id)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        self._leave_out_others(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _leave_out_others(self, state_dict: dict[str, Tensor], prefix: str) -> bool:
        """Whether there is no state of this method and its losses, or not any more: then the log
        says so."""
        names = " and ".join(self.keys)
        if not any(key.startswith(prefix) for key in state_dict) and self.state_dict():
            self.reset()
            logger.info(
                f"The checkpoint has no state for {names}: {type(self).__name__} begins anew."
            )
            return True
        saved = state_dict.pop(prefix + METHOD_ID, None)
        if saved is None or int(saved) == self.method_id:
            return False
        for key in [key for key in state_dict if key.startswith(prefix)]:
            del state_dict[key]
        self.reset()
        logger.warning(
            f"The checkpoint's state for {names} is of another method, or of other losses: "
            f"{type(self).__name__} begins anew."
        )
        return True
