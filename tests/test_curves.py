"""Parts of the figures of losses: the running median, and where weights changed."""

import io

import numpy as np
from run_folders import config, drawn, records, write_run

from alwa_d2.analysis import curves, losses_figure
from alwa_d2.analysis.runs import load_run


def test_a_weight_logged_right_after_its_update_is_put_there():
    iterations, values = np.array([19.0, 39, 59]), np.array([1.0, 0.7, 0.7])
    assert curves.step_positions(iterations, values, 20).tolist() == [19, 40, 59]
    # No multiple of the interval lies between the two lines: it stays where it was logged.
    assert curves.step_positions(iterations, values, 100).tolist() == [19, 39, 59]


def test_an_update_before_the_first_line_is_marked(tmp_path):
    lines = records()
    for line in lines[:5]:
        line["alwa/weight_cls"] = 0.7
    run = load_run(write_run(tmp_path / "a", lines, config(interval=10)))
    # Iteration 19 is logged after the updates at 10 and 20; which of them it was is not known.
    assert curves.update_marks(run) == ([], [])
    weights = losses_figure.make_figure([run]).axes[1]
    ((iterations, values),) = drawn(weights, "alwa/weight_cls")
    assert (iterations[:2], values[:2]) == ([0, 20], [1.0, 0.7])
    assert weights.get_legend().get_title().get_text().startswith("logged every 20 iterations")
    one_each = load_run(write_run(tmp_path / "c", lines, config(interval=20)))
    assert curves.update_marks(one_each)[1][0] == 20
    weights = losses_figure.make_figure([one_each]).axes[1]
    assert not weights.get_legend().get_title().get_text()
    # The rest of a run that was resumed elsewhere began with a weight that is not known.
    rest = load_run(write_run(tmp_path / "b", lines[4:], config(interval=10)))
    assert rest.weights("cls")[0, 0] == 99


def test_values_that_are_not_finite_leave_a_gap(tmp_path):
    lines = records()
    lines[3]["loss_cls"], lines[4]["loss_cls"] = float("nan"), float("inf")
    figure = losses_figure.make_figure([load_run(write_run(tmp_path / "a", lines))])
    ((_, medians),) = drawn(figure.axes[0], "median loss_cls")
    assert np.isfinite(medians).all()
    figure.savefig(io.BytesIO())


def test_the_median_keeps_steps_and_is_nan_without_finite_values():
    steps = np.repeat([4.0, 1.0], 20)
    assert np.array_equal(curves.smooth(steps), steps)
    noisy = steps.copy()
    noisy[10] = 100.0
    assert curves.smooth(noisy)[10] == 4.0
    assert np.isnan(curves.smooth(np.full(3, np.nan))).all()
