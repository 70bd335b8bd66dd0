"""Loads the compiled extension, and says what to do where it cannot be loaded.

Importing `alwa_d2` works without the extension; calling one of its ops then raises one message.
"""

import importlib

import torch  # noqa: F401  (the extension links against the libraries that torch has loaded)

try:
    importlib.import_module("alwa_d2._C")
    _load_error = None
except ImportError as error:
    _load_error = error


def require_ops() -> None:
    """Raises a RuntimeError with cause and remedy where the extension is not loaded."""
    if _load_error is not None:
        raise RuntimeError(
            f"alwa_d2's compiled extension could not be loaded: {_load_error}. Build it for the "
            f"PyTorch in use ({torch.__version__}) with `pip install --no-build-isolation -e .` in "
            "the project's folder. The same losses in plain PyTorch, slower, are in "
            "alwa_d2.layers.reference."
        ) from _load_error


def register(op: str, *, fake) -> None:
    """Gives the compiled op `alwa_d2::<op>` what Python has to add: what it returns for tensors
    without numbers. The same for its gradient `alwa_d2::<op>_backward`, whose own is refused.

    Args:
        op: name of the op; what leads to its gradient is in csrc/autograd/<op>.cpp
        fake: (forward, backward), functions that check the arguments and return empty outputs;
            (forward,) for an op without gradient, whose outputs never require one; what is to be
            said of the gradient of an op that writes is said in csrc/autograd/<op>.cpp
    """
    if _load_error is not None:
        return
    name = f"alwa_d2::{op}"
    torch.library.register_fake(name, fake[0])
    if len(fake) == 1 and not _writes(op):
        torch.library.register_autograd(name, _no_gradient, setup_context=_mark_outputs)
    if len(fake) == 2:
        torch.library.register_fake(f"{name}_backward", fake[1])
        torch.library.register_autograd(f"{name}_backward", _refuse_second_derivative)


def _writes(op) -> bool:
    """Whether the op changes an argument; PyTorch then takes no autograd formula in Python."""
    return getattr(torch.ops.alwa_d2, op).default._schema.is_mutable


def _mark_outputs(ctx, inputs, output):
    ctx.mark_non_differentiable(*output)


def _no_gradient(ctx, *grads):
    raise RuntimeError("an op without gradient has no backward")


def _refuse_second_derivative(ctx, *grads):
    raise RuntimeError("alwa_d2's losses can be differentiated once, not twice")
