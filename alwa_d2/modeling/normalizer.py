"""The loss normaliser of dense detectors."""

import torch
from detectron2.utils import comm
from torch import distributed as dist
from torch import nn

from ..layers import loss_scales
from ..weighting import LoadsStockCheckpoints, weighters_of

MOMENTUM = 0.9  # Detectron2's


class LossNormalizer(LoadsStockCheckpoints):
    """
    For a `DenseDetector` before it in the list of bases: the moving average of the number of
    foreground anchors in a batch, which Detectron2 keeps in a plain attribute, as a buffer that is
    saved with the model. It does not move in passes without gradients.

    By default each process has its own, as in Detectron2. With `sync_normalizer` the count is
    averaged over the processes, in one all-reduce an iteration.

    Attributes:
        normalizer_start: its value before the first batch
        num_pos_anchors: 0-dim tensor, foreground anchors per image of the last batch, or None
    """

    normalizer_start: float
    # Buffers that each process has its own value of, for the engine to save.
    rank_buffers = ("loss_normalizer",)
    __jit_unused_properties__ = ["num_pos_anchors"]

    def init_normalizer(self, sync_normalizer: bool = False) -> None:
        """Call at the end of __init__."""
        self.sync_normalizer = sync_normalizer
        start = torch.tensor(self.normalizer_start, dtype=torch.float64)
        self.register_buffer("loss_normalizer", start)
        self._last_foreground = None  # its count, (), and the number of images

    @property
    def num_pos_anchors(self):
        if self._last_foreground is None:
            return None
        count, images = self._last_foreground
        return count / images

    def anchor_counts(self):
        """Name in the event storage -> 0-dim tensor, of the last batch."""
        return {} if self._last_foreground is None else {"num_pos_anchors": self.num_pos_anchors}

    def update_normalizer(self, num_foreground, images, weights=()):
        """
        Takes in a batch's number of foreground anchors, and gives what its losses are multiplied
        with, in tensors that later batches leave.

        Args:
            num_foreground: 0-dim int64, of all images
            images: how many these are
            weights: detached 0-dim tensors

        Returns:
            (len(weights) + 1,) float64: each weight over the normaliser, and 1 over it
        """
        self._last_foreground = (num_foreground, images)
        observing = self.training and torch.is_grad_enabled()
        if observing and self.sync_normalizer and comm.get_world_size() > 1:
            num_foreground = num_foreground.double()  # a copy
            dist.all_reduce(num_foreground)
            num_foreground /= comm.get_world_size()
        return loss_scales(
            num_foreground,
            self.loss_normalizer,
            [weight.double() for weight in weights],
            momentum=MOMENTUM,
            update=observing,
        )

    def scales_of(self, losses, weights, num_foreground, images):
        """
        Loss -> what it is multiplied with, after :meth:`update_normalizer`: its weight over the
        normaliser, or without a weight 1 over the normaliser.

        Args:
            losses: names of those that the model has
            weights: name -> detached 0-dim tensor, of `kernel_weights`
        """
        *scales, inverse = self.update_normalizer(num_foreground, images, weights.values()).unbind()
        return dict.fromkeys(losses, inverse) | dict(zip(weights, scales, strict=True))

    def reset_normalizer(self) -> bool:
        """Sets it back to where a training starts; whether it had moved."""
        moved = bool(self.loss_normalizer != self.normalizer_start)
        self.loss_normalizer.fill_(self.normalizer_start)
        return moved

    def _apply(self, fn, recurse=True):
        normalizer = self.loss_normalizer
        super()._apply(fn, recurse)
        # It moves with the model, but stays float64 where the model is cast.
        if self.loss_normalizer.dtype != normalizer.dtype:
            self.loss_normalizer = normalizer.to(self.loss_normalizer.device)
        return self

    def _load_from_state_dict(
        self, state_dict, prefix, metadata, strict, missing, unexpected, errors
    ):
        # A checkpoint of Detectron2's own has no normaliser: the start value stands.
        key = prefix + "loss_normalizer"
        if key not in state_dict:
            missing.append(key)
            state_dict[key] = self.loss_normalizer.new_tensor(self.normalizer_start)
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing, unexpected, errors
        )


def reset_loss_state(model: nn.Module) -> bool:
    """
    Sets all loss weighters and loss normalisers of a model back to where a training starts.

    For a training that begins with the weights of another one, after these are loaded: their state
    is in the same file. alwa_d2's trainer does it where it does not resume.

    Returns:
        whether one of them had moved
    """
    moved = [weighter.reset() for weighter in weighters_of(model)]
    moved += [x.reset_normalizer() for x in model.modules() if isinstance(x, LossNormalizer)]
    return any(moved)
