"""What runs and their parts are called in tables and figures."""

import re

from .runs import WEIGHT, Run

HASH = r"-[0-9a-f]{12}$"  # the end of a folder's name that a sweep gives


def short_name(name: str) -> str:
    """A run's name without the hash that a sweep puts at its end."""
    return re.sub(HASH, "", name)


def place(run: Run, pair: tuple[str, str]) -> str:
    """Where in the model a pair of losses belongs: head, or ROI with its stage, or RPN."""
    stem, _, stage = pair[0].partition("_stage")
    head = "ROI" if stage or "loss_rpn_cls" in run.series else "head"
    name = {"cls": head, "rpn_cls": "RPN"}.get(stem, stem)
    return name + (f", stage {stage}" if stage else "")


def rule_name(run: Run) -> str:
    """How the weights came about, in a few words."""
    weighting = run.weighting
    if run.fixed_weights:
        return f"{weighting.name} {':'.join(f'{weight:g}' for weight in run.fixed_weights)}"
    if not weighting.interval:
        return weighting.name
    frozen = f", frozen after {weighting.frozen}" if weighting.frozen else ""
    return f"{weighting.variant} {weighting.rule} C={weighting.interval}{frozen}"


def headline(run: Run) -> str:
    """Lines: the run's name; weighter and its settings; the last AP if there is one."""
    weighting = run.weighting
    if weighting.interval:
        parts = [
            weighting.variant,
            f"rule {weighting.rule}",
            f"C = {weighting.interval} iterations",
        ]
        parts += [f"frozen after {weighting.frozen}"] * bool(weighting.frozen)
    else:
        weights = " : ".join(f"{run.last(WEIGHT + name):g}" for name in run.losses)
        what = " weights" if weighting.name == "Fixed" else ", last weights"
        parts = [f"{weighting.name}{what} {weights}"]
    scores = {key: run.last(f"bbox/{key}") for key in ("AP", "AP50")}
    found = [f"{key} {score:.1f}" for key, score in scores.items() if score is not None]
    return "\n".join(filter(None, (run.name, ", ".join(parts), ", ".join(found))))
