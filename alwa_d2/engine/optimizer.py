"""Detectron2's optimizer or AdamW, with a group of its own for loss weights that are learnt."""

from functools import partial

import torch
from detectron2 import solver
from torch import nn

from ..errors import UserError
from ..weighting import LossWeighter, weighters_of


def _sgd(groups, keys, **settings) -> torch.optim.SGD:
    """As Detectron2 builds it."""
    return torch.optim.SGD(groups, momentum=keys.MOMENTUM, nesterov=keys.NESTEROV, **settings)


def _adamw(groups, keys, **settings) -> torch.optim.AdamW:
    """With PyTorch's betas and eps."""
    return torch.optim.AdamW(groups, **settings)


OPTIMIZERS = {"SGD": _sgd, "AdamW": _adamw}


def build_optimizer(cfg, model: nn.Module) -> torch.optim.Optimizer:
    """
    What Detectron2 builds of the config, or AdamW (`SOLVER.OPTIMIZER`) with the same groups. A loss
    weighter's parameters are in a group with the weighter's own learning rate, without weight decay
    and outside gradient clipping. The schedule multiplies that rate as all others.

    Args:
        model: not the `DistributedDataParallel` around it

    Raises:
        UserError: another `SOLVER.OPTIMIZER`
    """
    keys = cfg.SOLVER
    if keys.OPTIMIZER not in OPTIMIZERS:
        raise UserError(
            f"SOLVER.OPTIMIZER: expected {' or '.join(OPTIMIZERS)}, got {keys.OPTIMIZER!r}"
        )
    overrides = optimizer_overrides(model)
    if not overrides and keys.OPTIMIZER == "SGD":
        return solver.build_optimizer(cfg, model)
    groups = solver.get_default_optimizer_params(
        model,
        base_lr=keys.BASE_LR,
        weight_decay_norm=keys.WEIGHT_DECAY_NORM,
        bias_lr_factor=keys.BIAS_LR_FACTOR,
        weight_decay_bias=keys.WEIGHT_DECAY_BIAS,
        overrides=overrides,
    )
    settings = {"lr": keys.BASE_LR, "weight_decay": keys.WEIGHT_DECAY, "foreach": True}
    optimizer = OPTIMIZERS[keys.OPTIMIZER](groups, keys, **settings)
    if keys.CLIP_GRADIENTS.ENABLED:
        # Detectron2's own clips all parameters of the optimizer.
        learnt = {id(x) for weighter in weighters_of(model) for x in weighter.parameters()}
        clipped = [x for x in model.parameters() if x.requires_grad and id(x) not in learnt]
        optimizer.register_step_pre_hook(partial(_clip, clipped, _clipper(keys.CLIP_GRADIENTS)))
    return optimizer


def optimizer_overrides(model: nn.Module) -> dict[str, dict[str, float]]:
    """
    What Detectron2's `get_default_optimizer_params(model, overrides=...)` needs, so that a loss
    weighter's parameters get the weighter's own learning rate and no weight decay.

    Args:
        model: not the `DistributedDataParallel` around it

    Returns:
        name of a learnt parameter -> its settings; empty where no weights are learnt

    Raises:
        ValueError: a weighter with parameters and without a learning rate, two with different ones,
            or another parameter of that name: Detectron2 goes by the last part of a name
    """
    overrides = {}
    for weighter in weighters_of(model):
        for name, _ in weighter.named_parameters(recurse=False):
            if weighter.learning_rate is None:
                kind = type(weighter).__name__
                raise ValueError(f"{kind}.learning_rate: expected one for {name}, got None")
            own = {"lr": weighter.learning_rate, "weight_decay": 0.0}
            if overrides.setdefault(name, own) != own:
                raise ValueError(
                    f"learning_rate: expected the same one for all weighters' {name}, got "
                    f"{overrides[name]['lr']} and {weighter.learning_rate}"
                )
    for prefix, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            if name in overrides and not isinstance(module, LossWeighter):
                raise ValueError(
                    f"{prefix}.{name}: expected another name than that of a loss weighter's "
                    "parameter, by which its learning rate is set"
                )
    return overrides


def wrong_groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """
    What is wrong where the optimizer does not have a weighter's parameters, or has them in a group
    with others and steps them as those: a line for each such weighter.
    """
    groups = {id(x): group for group in optimizer.param_groups for x in group["params"]}
    lines = []
    for weighter in weighters_of(model):
        learnt = [x for x in weighter.parameters() if x.requires_grad]
        own = {id(x) for x in learnt}
        found = [groups.get(id(x)) for x in learnt]
        what = f"{type(weighter).__name__} learns the weights of {' and '.join(weighter.keys)}"
        if None in found:
            lines.append(f"{what}, but the optimizer does not have its parameters.")
            continue
        for group in found:
            # A schedule has changed "lr" by now, as it does in the weighter's own group.
            rate, decay = group.get("initial_lr", group["lr"]), group.get("weight_decay", 0)
            shared = any(id(x) not in own for x in group["params"])
            if shared and (rate != weighter.learning_rate or decay):
                lines.append(
                    f"{what} with the learning rate {rate:g} and weight decay {decay:g} of other "
                    f"parameters, not with its own {weighter.learning_rate} and 0. Give "
                    "alwa_d2.engine.optimizer_overrides(model) to Detectron2's "
                    "get_default_optimizer_params."
                )
                break
    return lines


def _clipper(keys):
    """SOLVER.CLIP_GRADIENTS as a function of one parameter, as Detectron2 applies it."""
    if keys.CLIP_TYPE == "value":
        return partial(nn.utils.clip_grad_value_, clip_value=keys.CLIP_VALUE)
    if keys.CLIP_TYPE == "norm":
        return partial(nn.utils.clip_grad_norm_, max_norm=keys.CLIP_VALUE, norm_type=keys.NORM_TYPE)
    raise ValueError(
        f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE: expected value or norm, got {keys.CLIP_TYPE!r}"
    )


def _clip(parameters, clip, optimizer, args, kwargs) -> None:
    """In front of each step; `GradScaler` has taken its factor out by then."""
    for parameter in parameters:
        clip(parameter)
