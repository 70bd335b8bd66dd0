"""The figure of losses, weights and statistics, a column for each run."""

import pytest
from run_folders import WEIGHTS, config, constant, drawn, records, write_run

from alwa_d2.analysis import losses_figure
from alwa_d2.analysis.runs import load_run


def test_losses_are_drawn_as_logged(tmp_path):
    figure = losses_figure.make_figure([load_run(write_run(tmp_path / "a"))])
    losses, weights, statistics = figure.axes
    iterations = list(range(19, 200, 20))
    for key in ("loss_cls", "loss_box_reg", "unweighted/loss_cls", "unweighted/loss_box_reg"):
        (points,) = drawn(losses, f"points {key}")
        assert points == (iterations, [line[key] for line in records()[:-1]])
    styles = {line.get_gid(): line for line in losses.lines}
    weighted, unweighted = styles["median loss_cls"], styles["median unweighted/loss_cls"]
    assert (unweighted.get_linestyle(), weighted.get_linestyle()) == ("-", "--")
    assert unweighted.get_color() == weighted.get_color()
    assert styles["median loss_box_reg"].get_color() != weighted.get_color()
    assert losses.get_title() == "a\nALWA_2, rule authors, C = 50 iterations\nAP 40.2, AP50 71.5"
    # Values from 0.05 to 2 span more than a decade.
    assert losses.get_yscale() == "log" and weights.get_yscale() == "linear"
    assert statistics.get_xlabel() == "iteration"
    labels = {text.get_text() for text in losses.get_legend().get_texts()}
    assert labels == {
        *("classification, unweighted", "classification, weighted"),
        *("box, unweighted", "box, weighted"),
    }


def test_a_narrow_range_keeps_its_linear_axis(tmp_path):
    lines = records()[:4]
    figure = losses_figure.make_figure([load_run(write_run(tmp_path / "a", lines))])
    assert figure.axes[0].get_yscale() == "linear"


def test_weights_and_statistics_step_at_the_updates(tmp_path):
    figure = losses_figure.make_figure([load_run(write_run(tmp_path / "a"))])
    _, weights, statistics = figure.axes
    # Logged first in iteration 119, but it can only have changed at 100.
    expected = [0, 19, 39, 59, 79, 99, 100, 139, 159, 179, 199]
    assert drawn(weights, "alwa/weight_cls") == [(expected, [1.0, *WEIGHTS])]
    (line,) = (line for line in weights.lines if line.get_gid() == "alwa/weight_cls")
    assert line.get_drawstyle() == "steps-post"
    for axes in (weights, statistics):
        assert [x for x, _ in drawn(axes, "kept")] == [[50, 50], [150, 150], [200, 200]]
        assert [x for x, _ in drawn(axes, "changed")] == [[100, 100]]
    # Logged first in iteration 59, and known since the first window's end.
    expected = [50, *range(79, 200, 20)]
    assert drawn(statistics, "alwa/stat_box_reg") == [(expected, [0.2] * 8)]


def test_fixed_weights_have_no_marks_and_no_statistics(tmp_path):
    folder = write_run(tmp_path / "a", records(statistics=False), config("Fixed"))
    figure = losses_figure.make_figure([load_run(folder)])
    losses, weights = figure.axes
    assert drawn(weights, "kept") == drawn(weights, "changed") == []
    assert drawn(weights, "alwa/weight_cls")[0][0] == list(range(19, 200, 20))
    assert "Fixed weights 0.5 : 1\nAP 40.2" in losses.get_title()


def test_several_runs_stand_side_by_side(tmp_path):
    first = write_run(tmp_path / "first", settings=config(rule="balance"))
    second = write_run(tmp_path / "second", records(statistics=False), config("Fixed"))
    both = [load_run(folder) for folder in (first, second)]
    figure = losses_figure.make_figure(both, title="two rules")
    assert len(figure.axes) == 5  # the second has no statistics
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [title.split("\n")[0] for title in titles] == ["first", "second"]
    assert "unweighted loss" in next(
        axes.get_ylabel() for axes in figure.axes if axes.get_ylabel().startswith("S =")
    )
    assert figure.get_suptitle() == "two rules"


@pytest.mark.parametrize("fixed_first", [True, False])
def test_statistics_have_numbers_wherever_they_stand(tmp_path, fixed_first):
    fixed = [constant(tmp_path / f"f{i}", 1.0, 1.0) for i in range(4)]
    alwa = load_run(write_run(tmp_path / "alwa"))
    given = [fixed[0], alwa] if fixed_first else [alwa, *fixed]  # the latter in two lines
    figure = losses_figure.make_figure(given)
    (statistics,) = [axes for axes in figure.axes if axes.get_ylabel().startswith("S =")]
    figure.draw_without_rendering()
    assert any(
        tick.label1.get_visible() and tick.label1.get_text()
        for tick in statistics.yaxis.get_major_ticks()
    )


def test_more_than_two_pairs_have_a_column_each(tmp_path):
    stages = [f"{loss}_stage{k}" for k in range(3) for loss in ("cls", "box_reg")]
    run = load_run(write_run(tmp_path / "a", records(("rpn_cls", "rpn_loc", *stages))))
    assert run.losses == [*stages, "rpn_cls", "rpn_loc"]
    figure = losses_figure.make_figure([run])
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes if axes.get_title()]
    assert titles == ["a: ROI, stage 0", "a: ROI, stage 1", "a: ROI, stage 2", "a: RPN"]
    assert len(figure.axes) == 12
    assert drawn(figure.axes[1], "points loss_cls_stage1")
    assert len(losses_figure.make_figure([run, run]).axes) == 24
