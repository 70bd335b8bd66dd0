"""What the course of a classification weight gives cause to try."""

import numpy as np

from .._show import counted
from .runs import Run

LOW = 0.05  # a weight that leaves a loss a twentieth of its scale
JUMP = 0.05  # median change from update to update that counts as jumping
NEAR_ONE = 0.99


def levels(run: Run, weights: np.ndarray) -> np.ndarray:
    """The weight after each update, before it the first one's 1, (updates + 1,)."""
    inside = [iteration for iteration in run.updates if iteration < run.iterations]
    return weights[[0, *inside]]


def two_cycle(values: np.ndarray) -> tuple[float, float] | None:
    """The two levels between which a weight jumps from change to change, None if it does not.

    Values kept over several updates count once. Of a two-cycle, each second value is near the last
    but one: nearer by half than to the one in between. Independent values are as far from either.
    """
    values = values[np.concatenate([[True], values[1:] != values[:-1]])]
    if len(values) < 5:
        return None
    step, double = (np.median(np.abs(values[k:] - values[:-k])) for k in (1, 2))
    if step < JUMP or double > step / 2:
        return None
    return tuple(sorted(float(np.median(values[start::2])) for start in (0, 1)))


def advise_low(run: Run, pair: tuple[str, str], weights: np.ndarray) -> str:
    """For a weight that came down to LOW or less: since when, for how long, what to try."""
    start, share = int(np.argmax(weights <= LOW)), float(np.mean(weights <= LOW))
    value, still = float(weights.min()), weights[-1] <= LOW
    fate = "and stayed there" if still else f"and left it again (now {weights[-1]:.2g})"
    said = f"w_cls came down to {value:.2g} at iteration {start} {fate}; {share:.0%} of the run."
    if value == 0:
        said += " At 0 a window held no box loss: look at the data."
    if start == run.weighting.interval:
        iterations, losses = run.series[f"unweighted/loss_{pair[0]}"]
        inside = losses[iterations < run.weighting.interval]
        if len(inside) > 1:
            said += (
                " The first window set it, in which this loss went from "
                f"{inside[0]:.2g} to {inside[-1]:.2g}."
            )
    rule = "MODEL.ALWA.RULE balance, or " if run.weighting.rule == "authors" else ""
    return said + f" Try {rule}to leave this pair out by MODEL.LOSS_WEIGHTER.LOSSES."


def advise_course(run: Run, pair: tuple[str, str], weights: np.ndarray) -> list[str]:
    """Advice from how an adapted weight went."""
    values = levels(run, weights)
    if run.hides_updates:
        return [
            f"The weight may change every {run.weighting.interval} iterations, and the log has a "
            f"line every {run.pace}: what it did in between is not known. Logged were "
            f"{values.min():.2g} to {values.max():.2g}."
        ]
    if len(values) < 3:
        updates, iterations = len(values) - 1, counted(run.iterations, "iterations")
        return [f"{counted(updates, 'updates')} in {iterations}: too few to judge."]
    if (values >= NEAR_ONE).all():
        return [f"w_cls stayed at {values.min():.3g} or above: weighting has nothing to do here."]
    advice = [advise_low(run, pair, weights)] if values.min() <= LOW else []
    if (values[1:] == values[1]).all():
        advice.append(
            f"w_cls was set once, to {values[1]:.3g} after the first window, and kept by all "
            f"{counted(len(values) - 2, 'updates')} after it: the run is one with a fixed weight "
            "from then on."
        )
    cycle = two_cycle(values)
    if cycle and run.weighting.rule == "authors":
        advice.append(
            f"w_cls goes to and fro, about {cycle[0]:.2g} and {cycle[1]:.2g}, as in the two-cycle "
            "of `authors`. Try MODEL.ALWA.RULE balance."
        )
    return advice


def advise(run: Run, pair: tuple[str, str], weights: np.ndarray, result: dict) -> list[str]:
    """Lines of advice for a pair of losses, each from a number of `result` or of the weights."""
    advice = advise_course(run, pair, weights) if run.weighting.interval else []
    if run.fixed_weights == (1.0, 1.0):
        advice.append("Weights 1:1, the baseline: nothing was weighted.")
    elif result["gain"]:
        advice.append(
            f"AP {result['gain']['AP']:+.1f} against {result['gain']['over']} of the same settings."
        )
    else:
        advice.append("Compare its AP with a run with Fixed weights 1:1, given here along with it.")
    below = result["below_one"]["mean_cls"] < result["below_one"]["mean_box"]
    if result["falls_faster"]["holds"] == "no" and below:
        advice.append(
            "The box loss fell faster, while the classification loss was weighted down: the "
            "paper's reason for that is not there."
        )
    if result["gap"]["holds"] != "yes":
        advice.append(
            "The weights are further apart than the paper recommends: compare with Fixed weights "
            'of 0.5:1 (MODEL.LOSS_WEIGHTER.WEIGHTS "[0.5, 1.0]").'
        )
    return advice
