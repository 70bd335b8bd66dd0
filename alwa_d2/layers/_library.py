"""Loads the compiled extension, and says what to do where it cannot be loaded.

Importing `alwa_d2` works without the extension; calling one of its ops then raises one message.
"""

from typing import Any

import torch

from .. import built

_load_error = built.load()


def require_ops() -> None:
    """Raises a RuntimeError with cause and remedy where the extension is not loaded."""
    if _load_error is not None:
        raise RuntimeError(
            f"alwa_d2's compiled extension could not be loaded: {_load_error}. {built.REMEDY}. "
            "The same losses in plain PyTorch, slower, are in alwa_d2.layers.reference."
        )


def differentiable_once(op: str) -> None:
    """Has the gradient of `alwa_d2::<op>_backward`, the gradient of the compiled op, refused. What
    leads to the op's own, and refuses other derivatives, is in csrc/autograd/."""
    if _load_error is None:
        torch.library.register_autograd(f"alwa_d2::{op}_backward", _refuse_second_derivative)


def _refuse_second_derivative(ctx: Any, *grads: Any) -> None:
    torch.ops.alwa_d2._refuse_derivative()
