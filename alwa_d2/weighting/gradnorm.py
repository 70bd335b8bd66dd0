"""GradNorm (Chen et al., ICML 2018, arXiv 1711.02257)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._show import show
from .base import LossWeighter
from .following import in_order, is_present, scale_to_sum
from .options import number, whole
from .processes import Group, average
from .registry import LOSS_WEIGHTER_REGISTRY

KEY = "MODEL.LOSS_WEIGHTER.GRADNORM"
FPN_OUTPUTS = r"fpn_output\d+\.weight$"  # convolutions of Detectron2's FPN, without their norms
LEAST = 1e-2  # of a weight: a step of the published rule may lead below 0


@LOSS_WEIGHTER_REGISTRY.register()
class GradNorm(LossWeighter):
    """
    Weights w that bring the norms of the losses' gradients together, faster for losses that lag.

    Of each loss L, g is the norm of its gradient at parameters which all losses share, taken
    together: in Detectron2's models the weights of all FPN output convolutions. With r = L / L(0)
    by the mean of that over the losses, the target for w g is mean(w g) r^alpha; w takes a gradient
    step down `|w g - target|`, the target held, and is scaled so that the sum stays the number of
    losses. L(0) is a mean over the first `window` iterations in which a loss was present (see
    :func:`is_present`); before, and in an iteration where one is not, no weight changes. With
    several processes or batches g and L are means over them; the mean of such norms is larger than
    the norm of the mean gradient.

    It costs a partial backward for each loss and batch: from the loss to the shared parameters,
    nearly all of the heads' backward once more. The gradients that this package's kernels compute
    ahead are spent by it, so that the actual backward computes them again. `torch.compile` breaks
    the graph here. In float16 small gradients become 0, since the norms come without a
    `GradScaler`'s factor; bfloat16 has no such limit.
    """

    known_before = False  # the losses' gradients are needed
    config_keys = tuple(f"{KEY}.{key}" for key in ("ALPHA", "LR", "WINDOW", "PARAMETERS"))
    weight_vector: Tensor
    first_losses: Tensor
    seen: Tensor
    _norms: Tensor

    def __init__(
        self,
        *keys: str,
        alpha: float = 1.5,
        lr: float = 0.025,
        window: int = 20,
        parameters: str = FPN_OUTPUTS,
        shared: Iterable[Tensor] = (),
        process_group: Group = None,
    ) -> None:
        """
        Args:
            keys, process_group: see :class:`LossWeighter`
            alpha: how strongly losses that lag are favoured, at least 0; 0: equal norms
            lr: step of the weights, at least 0
            window: iterations, at least 1
            parameters: regular expression for names of the shared parameters, for `attach`
            shared: the shared parameters themselves, where no model calls `attach`

        Raises:
            ValueError: another type or value
        """
        super().__init__(*keys, process_group=process_group)
        self.alpha = number(f"alpha ({KEY}.ALPHA)", alpha, least=0)
        self.lr = number(f"lr ({KEY}.LR)", lr, least=0)
        self.window = whole(f"window ({KEY}.WINDOW)", window, least=1)
        try:
            self._pattern = re.compile(parameters)
        except (TypeError, re.error) as error:
            where = f"parameters ({KEY}.PARAMETERS)"
            raise ValueError(
                f"{where}: expected a regular expression, got {show(parameters)}"
            ) from error
        self._shared = list(shared)  # a list: they are not the weighter's own
        ones = torch.ones(len(self.keys), dtype=torch.float64)
        self.register_buffer("weight_vector", ones)
        self.register_buffer("first_losses", torch.zeros_like(ones))  # mean of those seen so far
        self.register_buffer("seen", torch.zeros_like(ones))  # iterations in that mean
        # Of this iteration, the mean over its batches.
        self.register_buffer("_norms", torch.full_like(ones, torch.nan), persistent=False)
        self._in_vain = 0  # batches in a row whose losses did not depend on the shared parameters

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        given = cfg.MODEL.LOSS_WEIGHTER.GRADNORM
        return {
            "alpha": given.ALPHA,
            "lr": given.LR,
            "window": given.WINDOW,
            "parameters": given.PARAMETERS,
        }

    def attach(self, model: nn.Module) -> None:
        self._shared = [x for name, x in model.named_parameters() if self._pattern.search(name)]
        if not any(x.requires_grad for x in self._shared):
            raise ValueError(
                f"parameters ({KEY}.PARAMETERS): expected a regular expression that finds "
                f"parameters of {type(model).__name__} that are not frozen, got "
                f"{show(self._pattern.pattern)}, which finds none"
            )

    def settings(self) -> str:
        text = f"alpha={self.alpha:g}, lr={self.lr:g}, window={self.window}"
        if self._pattern.pattern != FPN_OUTPUTS:
            text += f", parameters={show(self._pattern.pattern)}"
        return f"{text}, with a partial backward for each loss in each iteration"

    def without_effect(self, max_iter: int) -> list[str]:
        if self.window + 1 < max_iter:
            return []
        return [
            f"GradNorm: WINDOW {self.window} leaves no iteration of SOLVER.MAX_ITER {max_iter} to "
            "change a weight in"
        ]

    @property
    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.keys, self.weight_vector.clone().unbind(), strict=True))

    def weigh(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.observing:
            norms = [self._norm(self._loss(losses, key, detach=False)) for key in self.keys]
            self._check_found(norms)
            none = self.weight_vector.new_zeros(())
            values = torch.stack([none if x is None else x.to(none) for x in norms])
            self._take_batch(self._norms, values)
        return super().weigh(losses)

    def _check_found(self, norms: list[Tensor | None]) -> None:
        """A batch may have no loss that leads to the shared parameters; many in a row may not."""
        self._in_vain = self._in_vain + 1 if all(norm is None for norm in norms) else 0
        if self._in_vain > self.window:
            raise RuntimeError(
                f"GradNorm: expected shared parameters that {' and '.join(self.keys)} depend on "
                f"({KEY}.PARAMETERS, or shared=), got some that none did in {self._in_vain} "
                "batches. If the model's parameters were replaced by others, call attach(model) "
                "again; torch.utils.checkpoint around them needs use_reentrant=False"
            )

    def _norm(self, loss: Tensor) -> Tensor | None:
        """
        Of the loss's gradient at the shared parameters, without its weight; (). None where it does
        not depend on them.
        """
        shared = [x for x in self._shared if x.requires_grad]
        if not shared:
            raise RuntimeError(
                "GradNorm: expected parameters that all losses share and that are not frozen, got "
                "none; give it shared=, or call attach(model)"
            )
        if not loss.requires_grad:
            return None
        found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        norms = [torch.linalg.vector_norm(x.double()) for x in found if x is not None]
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else None

    def step(self) -> None:
        super().step()
        if not self.observing:
            return
        values = torch.stack([self._norms, in_order(self._seen(), self.keys)])  # (2, n)
        average(values, self.process_group)
        self._update(*values.unbind())

    def _update(self, norms: Tensor, losses: Tensor) -> None:
        present = is_present(losses)
        counts = present & (self.seen < self.window)
        self.seen.add_(counts)
        new = torch.lerp(self.first_losses, losses, 1 / self.seen.clamp(min=1))
        self.first_losses.copy_(torch.where(counts, new, self.first_losses))

        ratio = losses / self.first_losses
        weighted = self.weight_vector * norms
        target = weighted.mean() * (ratio / ratio.mean()).pow(self.alpha)
        step = self.lr * (weighted - target).sign() * norms
        weights = scale_to_sum((self.weight_vector - step).clamp(min=LEAST))
        moves = present & (self.seen >= self.window) & ~counts & weights.isfinite()
        self.weight_vector.copy_(torch.where(moves.all(), weights, self.weight_vector))

    def reset(self) -> bool:
        super().reset()
        moved = bool(self.seen.any())
        self.weight_vector.fill_(1)
        self.first_losses.zero_()
        self.seen.zero_()
        return moved
