"""What ALWA takes of a window of losses."""

import torch
from torch import Tensor

# Statistic of a window of losses, (C, 2) -> (2,); the standard deviation is the sample one.
VARIANTS = {
    "ALWA_1": lambda window: window.mean(0) + window.std(0),
    "ALWA_2": lambda window: window.std(0),
}


def detrended(window: Tensor) -> Tensor:
    """
    The window without its slope: each loss's least-squares line over the iterations is taken out,
    and its mean put back.

    Args:
        window: (C, 2)
    """
    rows = torch.arange(len(window), dtype=window.dtype, device=window.device)[:, None]
    rows = rows - (len(window) - 1) / 2  # their mean is 0
    slope = (rows * window).sum(0) / rows.square().sum()
    return window - slope * rows
