"""The figure of trends in a grid, and the gains in AP over the twins with weights 1:1."""

from run_folders import config, constant, drawn, larger, records, write_run

from alwa_d2.analysis import grid_figure
from alwa_d2.analysis.judging import gain
from alwa_d2.analysis.runs import load_run
from alwa_d2.analysis.titles import place


def test_grid_names_weights_and_gains(tmp_path):
    given = [
        constant(tmp_path / "a", 1.0, 1.0, 40.0),
        constant(tmp_path / "b", 0.25, 0.5, 41.5),
        constant(tmp_path / "c", 1.0, 1.0, 42.0),
        constant(tmp_path / "d", 0.5, 0.75),
        load_run(write_run(tmp_path / "e")),
    ]
    figure = grid_figure.make_figure(given)
    assert [axes.get_title() for axes in figure.axes] == [
        "w_cls : w_box = 1 : 1\na\nAP 40.0, weights 1:1",
        "w_cls : w_box = 0.25 : 0.5\nb\nAP 41.5, +0.5 against the mean of 2 with 1:1",
        "w_cls : w_box = 1 : 1\nc\nAP 42.0, weights 1:1",
        "w_cls : w_box = 0.5 : 0.75\nd\nno AP: not evaluated",
        "ALWA_2 authors C=50\ne\nAP 40.2, -0.8 against the mean of 2 with 1:1",
    ]
    scaled = grid_figure.make_figure([*given, larger(given[0])])
    assert len({axes.get_ylim() for axes in scaled.axes}) == 1
    assert scaled.axes[0].get_ylim() != figure.axes[0].get_ylim()
    ((iterations, _),) = drawn(figure.axes[1], "trend cls")
    assert iterations == list(range(19, 200, 20))
    alone = grid_figure.make_figure(given[1:2]).axes[0].get_title()
    assert alone.endswith("AP 41.5, no such run with 1:1 given")
    longer = load_run(write_run(tmp_path / "f", records() + [{**records()[0], "iteration": 219}]))
    assert gain(longer, given) is None


def test_gains_are_over_the_twin_of_the_same_settings_and_seed(tmp_path):
    def make(name, weight, score, seed, kind):
        rest = {"SOLVER": {"BASE_LR": 0.1}, "KIND": kind, "OUTPUT_DIR": name, "SEED": seed}
        return constant(tmp_path / name, weight, 1.0, score, **rest)

    given = [
        make("g0", 1.0, 27.0, 0, "giou"),
        make("g1", 1.0, 29.0, 1, "giou"),
        make("l0", 1.0, 20.0, 0, "l1"),
        make("g0half", 0.5, 25.0, 0, "giou"),
        make("g2half", 0.5, 25.0, 2, "giou"),
        make("l0half", 0.5, 21.0, 0, "l1"),
        make("other", 0.5, 21.0, 0, "ciou"),
    ]
    found = [gain(run, given) for run in given[3:]]
    assert found == [(-2.0, "1:1"), (-3.0, "the mean of 2 with 1:1"), (1.0, "1:1"), None]


def test_gains_are_numbers(tmp_path):
    nan = float("nan")
    given = [constant(tmp_path / n, 1.0, 1.0, s) for n, s in (("a", nan), ("b", 40.0))]
    half = constant(tmp_path / "c", 0.5, 1.0, 41.0)
    assert gain(half, given) == (1.0, "1:1") and gain(given[0], given) is None
    assert grid_figure.grid_title(given[0], given).endswith("no AP: nan")


def test_the_grid_compares_runs_that_weight_a_part_of_the_same_losses(tmp_path):
    every = records(("cls", "box_reg", "rpn_cls", "rpn_loc"))
    names = ("rpn_cls", "rpn_loc")
    part = [
        {k: v for k, v in line.items() if not k.endswith(names) or k[:5] == "loss_"}
        for line in every
    ]
    base = [{**line, "alwa/weight_cls": 1.0, "alwa/weight_rpn_cls": 1.0} for line in every]
    weighted = load_run(write_run(tmp_path / "roi", part))
    none = load_run(write_run(tmp_path / "none", base, config("Fixed")))
    assert weighted.losses == ["cls", "box_reg"] and weighted.weighting.pairs == [
        ("cls", "box_reg")
    ]
    assert place(weighted, ("cls", "box_reg")) == "ROI"
    assert gain(weighted, [weighted, none]) == (0.0, "1:1")
    panel = grid_figure.make_figure([weighted, none]).axes[0]
    # Unweighted by the weighter, and so drawn as they are.
    for factor, name in enumerate(("cls", "box_reg", "rpn_cls", "rpn_loc"), 1):
        ((_, values),) = drawn(panel, f"trend {name}")
        assert values[0] == factor
