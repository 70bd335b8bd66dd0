"""What a loss side does on its device, and what it may not do, seen without a GPU."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

READS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class HostRead(RuntimeError):
    pass


class NoHostReads(TorchDispatchMode):
    """
    Refuses what waits for a device, or has it wait for the host: reads of a value, results whose
    shape depends on values, indexing by a mask, copies between devices and tensors of Python
    numbers, which are such copies. Fills are kernels and pass, as does a number in a 0-dim CPU
    tensor, which a kernel takes as an argument.

    Around fake tensors, which let masks and copies pass; they are refused on fake CPU tensors as if
    these were on a GPU, except for copies.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        is_index = name in ("index", "index_put", "index_put_")
        if any(tag in func.tags for tag in READS) and not is_index:
            raise HostRead(f"{func}: reads values of the device")
        tensors = [x for x in _flat((args, kwargs)) if isinstance(x, torch.Tensor)]
        if any(x.is_cuda for x in tensors) and any(x.is_cpu and x.dim() > 0 for x in tensors):
            raise HostRead(f"{func}: takes tensors of two devices")
        if is_index:
            self._check_indices(func, *args[1:3])
        if name in ("_to_copy", "copy_", "_copy_from"):
            target = kwargs.get("device") or args[0].device
            if {x.device.type for x in tensors} | {torch.device(target).type} == {"cpu", "cuda"}:
                raise HostRead(f"{func}: copies between devices")
        return func(*args, **kwargs)

    @staticmethod
    def _check_indices(func, indices, value=None):
        is_mask = [x is not None and x.dtype in (torch.bool, torch.uint8) for x in indices]
        # One number where one mask is: a masked fill.
        is_fill = len(indices) == 1 and value is not None and value.is_cpu and value.numel() == 1
        if any(is_mask) and not is_fill:
            raise HostRead(f"{func}: indexes by a mask")


class Operators(TorchDispatchMode):
    """
    Lists the operators that are called, views apart: on a GPU each launches something.

    Attributes:
        names: such as "alwa_d2.loss_scales" and "aten.add"
    """

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not func.is_view and func.overloadpacket is not torch.ops.aten.detach:
            self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def make_fake(model, device):
    """Fake tensors on `device` in place of the model's own, in fake mode; moving it would copy."""
    for module in model.modules():
        for name, x in module._parameters.items():
            if x is not None:
                x = torch.empty(x.shape, dtype=x.dtype, device=device)
                module._parameters[name] = nn.Parameter(x)
        for name, x in module._buffers.items():
            if x is not None:
                module._buffers[name] = torch.empty(x.shape, dtype=x.dtype, device=device)
    return model


def _flat(x):
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, list | tuple):
        for item in x:
            yield from _flat(item)
    else:
        yield x
