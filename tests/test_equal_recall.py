"""False positives at equal recall, on detections made by hand."""

import pytest

pytest.importorskip("detectron2", reason="needs Detectron2")

from boxes_by_hand import two_runs

from alwa_d2.analysis.equal_recall import Curve, common_recall, curve_of, false_positive_table


def test_false_positives_at_equal_recall():
    # By falling score: T F T F F T, four boxes.
    scores, hits = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 0, 1]
    curve = Curve(scores[::-1], hits[::-1], 4)  # in any order
    assert curve.at(0.25) == (0.9, 0) and curve.at(0.2) == (0.9, 0)
    assert curve.at(0.26) == (0.7, 1) and curve.at(0.5) == (0.7, 1)
    assert curve.at(0.75) == (0.4, 3) and curve.at(0.76) is None
    assert curve.best == 0.75
    assert [curve.recall_at(score) for score in (0.95, 0.7, 0.5, 0.0)] == [0, 0.5, 0.5, 0.75]


def test_detections_of_one_score_are_taken_together():
    curve = Curve([0.9, 0.5, 0.5, 0.5], [True, True, False, False], 2)
    assert curve.at(0.5) == (0.9, 0) and curve.at(1.0) == (0.5, 2)


def test_no_detections_and_no_boxes():
    nothing = Curve([], [], 3)
    assert nothing.best == nothing.recall_at(0.5) == 0 and nothing.at(0.5) is None
    no_boxes = Curve([0.9], [False], 0)
    assert no_boxes.best == no_boxes.recall_at(0.5) == 0 and no_boxes.at(0.5) is None


def test_the_table_of_two_runs():
    curves = [curve_of(samples) for samples in two_runs()]
    # First: T 0.9, T 0.8, T 0.7, T 0.6, F 0.3. Second: T 0.9, F 0.8, F 0.7, T 0.6, F 0.5, T 0.4.
    assert common_recall(curves, 0.5) == 0.5
    assert common_recall(curves, 0.85) == 0.25
    assert common_recall(curves, None) == 0.5
    table = false_positive_table(curves, ["A one", "B two"], 0.5)
    assert [line.split() for line in table.splitlines()] == [
        "recall A one: FP (score) B two: FP (score) B - A".split(),
        "0.500* 0 (0.80) 2 (0.60) +2".split(),
        "0.600 0 (0.70) 3 (0.40) +3".split(),
        "0.700 0 (0.70) 3 (0.40) +3".split(),
        "0.800 0 (0.60) - -".split(),
        "0.900 0 (0.60) - -".split(),
        "* that of the picture".split(),
        "highest recall: A one 1.000, B two 0.750".split(),
    ]
    # One that finds one box of the four, and one that finds none.
    few, none = Curve([0.3], [True], 4), Curve([0.9], [False], 4)
    assert common_recall([curves[0], few], None) == 0.25
    assert common_recall([curves[0], none], None) == 0
    table = false_positive_table([curves[0], none], ["A one", "B two"], 0.0)
    assert "*" not in table
