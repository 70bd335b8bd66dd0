"""The figure of how far apart losses start, and the numbers in it."""

import pytest
from run_folders import config, constant, larger, records, write_run

from alwa_d2.analysis import scales_figure
from alwa_d2.analysis.judging import first_window, scale_ratio
from alwa_d2.analysis.runs import load_run


def test_scales_of_the_first_window(tmp_path):
    run = load_run(write_run(tmp_path / "a", records(("cls", "box_reg", "rpn_cls", "rpn_loc"))))
    assert run.weighting.pairs == [("cls", "box_reg"), ("rpn_cls", "rpn_loc")]
    # Lines of iterations 19 and 39 are in the window of 50: 1 and 1/2, twice that for the box.
    assert first_window(run, "cls") == (50, 0.75)
    assert first_window(run, "box_reg") == (50, 1.5)
    # The third and the fourth loss are 3 and 4 times the first.
    assert [scale_ratio(run, pair) for pair in run.weighting.pairs] == [0.5, 0.75]
    losses, scales = scales_figure.make_figure([run]).axes
    bars = {bar.get_gid(): bar for bar in scales.patches}
    ends = {
        name: bars[f"scale {name}"].get_x() + bars[f"scale {name}"].get_width()
        for name in run.losses
    }
    assert ends == pytest.approx({"cls": 0.75, "box_reg": 1.5, "rpn_cls": 2.25, "rpn_loc": 3.0})
    texts = [text.get_text() for text in scales.texts]
    assert "ROI: class / box = 0.5" in texts and "RPN: class / box = 0.75" in texts
    assert "logged of the first 50 iterations" in scales.get_xlabel()


def test_a_window_before_the_first_line_reaches_to_it(tmp_path):
    settings = config("Fixed", interval=10)
    run = load_run(write_run(tmp_path / "a", settings=settings))
    assert first_window(run, "cls") == (20, 1.0)


def test_scales_of_many_runs_stand_below_each_other(tmp_path):
    given = [constant(tmp_path / f"f{i}", 1.0, 1.0) for i in range(3)]
    figure = scales_figure.make_figure([*given, larger(given[0])])
    assert len(figure.axes) == 8 and figure.get_figwidth() < 25
    assert len({axes.get_ylim() for axes in figure.axes if axes.get_ylabel()}) == 1
