"""False positives of detectors at equal recall, over a whole data set."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from .matching import Sample, match

RECALLS = (0.5, 0.6, 0.7, 0.8, 0.9)


class Curve:
    """True and false positives of one detector over a data set, by its score threshold."""

    def __init__(self, scores: Sequence[float], hits: Sequence[bool], truths: int):
        """
        Args:
            scores: of all detections, in any order
            hits: whether each is a true positive
            truths: number of boxes in the ground truth
        """
        order = np.argsort(-np.asarray(scores, float), kind="stable")
        scores, hits = np.asarray(scores, float)[order], np.asarray(hits, bool)[order]
        # A threshold takes all detections of one score or none.
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
        self.thresholds = scores[last]  # (K,), falling
        self.true = np.cumsum(hits)[last]
        self.false = np.cumsum(~hits)[last]
        self.truths = truths

    @property
    def best(self) -> float:
        """The recall of all detections together."""
        return self.true[-1] / self.truths if len(self.true) and self.truths else 0.0

    def recall_at(self, score: float) -> float:
        """Recall of the detections scored `score` or more."""
        count = int(np.sum(self.thresholds >= score))
        return float(self.true[count - 1] / self.truths) if count and self.truths else 0.0

    def at(self, recall: float) -> tuple[float, int] | None:
        """(threshold, false positives) at the highest threshold that reaches `recall`, or None."""
        reached = np.flatnonzero(self.true >= recall * self.truths - 1e-9)
        if not self.truths or not len(reached):
            return None
        return float(self.thresholds[reached[0]]), int(self.false[reached[0]])


def curve_of(samples: Sequence[Sample]) -> Curve:
    """The curve of the detections in `samples`, matched image by image."""
    scores, hits = [], []
    for sample in samples:
        hits += match(sample.truth, sample.found)[0]
        scores += sample.found.scores.tolist()
    return Curve(scores, hits, sum(len(sample.truth) for sample in samples))


def common_recall(curves: Sequence[Curve], score: float | None) -> float:
    """The lowest recall of the detectors at `score`: all of them reach it.

    Without a score the least of RECALLS, or the highest recall that all reach if that is less.
    """
    if score is None:
        return min(RECALLS[0], *(curve.best for curve in curves))
    return min(curve.recall_at(score) for curve in curves)


def false_positive_table(curves: Sequence[Curve], labels: Sequence[str], common: float) -> str:
    """Plain text: for each recall, and for that of the picture, the false positives of each
    detector and its threshold."""
    header = ["recall", *(f"{label}: FP (score)" for label in labels)]
    header += ["B - A"] * (len(curves) == 2)
    rows = []
    for recall in sorted({*RECALLS, common} - {0.0}):
        found = [curve.at(recall) for curve in curves]
        row = [f"{recall:.3f}{'*' if recall == common else ''}"]
        row += ["-" if f is None else f"{f[1]} ({f[0]:.2f})" for f in found]
        if len(curves) == 2:
            row.append("-" if None in found else f"{found[1][1] - found[0][1]:+d}")
        rows.append(row)
    style = dict(tablefmt="plain", stralign="right", disable_numparse=True)
    lines = [tabulate(rows, headers=header, **style)]
    lines += ["* that of the picture"] * bool(common)
    bests = ", ".join(f"{label} {curve.best:.3f}" for label, curve in zip(labels, curves))
    return "\n".join([*lines, f"highest recall: {bests}"])
