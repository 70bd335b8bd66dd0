"""Diagnoses of runs made by hand, with numbers worked out here."""

import json

import numpy as np
import pytest
from run_folders import config, write_run

from alwa_d2.analysis import weight_course
from alwa_d2.analysis.diagnosis import diagnose, report
from alwa_d2.analysis.runs import load_run
from alwa_d2.cli.main import main


def write(folder, cls, box, weights, settings=None, names=("cls", "box_reg"), extra=()):
    """A run that logs every 20 iterations: unweighted losses, weight of the classification loss."""
    lines = []
    for index, values in enumerate(zip(cls, box, weights)):
        line = {"iteration": 20 * index + 19}
        for name, loss, weight in zip(names, values, (values[2], 1.0)):
            line |= {f"unweighted/loss_{name}": loss, f"loss_{name}": weight * loss}
            line[f"alwa/weight_{name}"] = weight
        lines.append(line)
    return write_run(folder, [*lines, *extra], settings or config(interval=40))


FALLING = [8.0, 4.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0]  # 200 iterations
SLOWLY = [4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]
# Updates at 40, 80, 120, 160, 200; iteration 39's line has the first.
SET_ONCE = [1.0] + 9 * [0.5]


def only(folder):
    run = load_run(folder)
    return diagnose(run, run.weighting.pairs[0], [run])


TWIN = "Compare its AP with a run with Fixed weights 1:1, given here along with it."


def test_numbers_of_the_three_conclusions(tmp_path):
    score = {"iteration": 200, "bbox/AP": 40.25}
    result = only(write(tmp_path / "a", FALLING, SLOWLY, SET_ONCE, extra=[score]))
    # First window of 40: lines 19 and 39, mean 6. Last tenth, from 180 on: line 199, that is 1.
    # Half of the fall from 8 to 1 is 4.5, passed in line 39.
    cls, box = result["falls_faster"]["cls"], result["falls_faster"]["box"]
    assert cls == {"first_window": 6.0, "last_tenth": 1.0, "ratio": 1 / 6, "half_done": 40}
    assert box == {"first_window": 4.0, "last_tenth": 3.0, "ratio": 0.75, "half_done": 80}
    assert result["falls_faster"]["holds"] == "yes"
    assert result["scale_ratio"] == 1.5 and result["AP"] == 40.25
    # 1 in iterations 0 to 39, which do not count, 0.5 in 40 to 199.
    below = result["below_one"]
    assert (below["mean_cls"], below["mean_box"], below["share"]) == (0.5, 1.0, 1.0)
    assert below["holds"] == "yes"
    assert result["gap"] == {"holds": "yes", "mean_ratio": 0.5, "smallest_ratio": 0.5, "share": 1.0}
    set_once, twin = result["advice"]
    assert "set once, to 0.5 after the first window, and kept by all 3 updates" in set_once
    assert twin == TWIN


def test_weights_count_from_the_first_update_on(tmp_path):
    # 0.5 in 40 to 119, 1 in 120 to 199: half of the 160 iterations; the least ratio 0.5.
    result = only(write(tmp_path / "a", FALLING, SLOWLY, [1.0] + 4 * [0.5] + 5 * [1.0]))
    below = {"holds": "partly", "mean_cls": 0.75, "mean_box": 1.0, "share": 0.5}
    assert result["below_one"] == below
    assert result["gap"]["mean_ratio"] == 0.75
    # No update but the one that ends the training.
    result = only(write(tmp_path / "b", FALLING, SLOWLY, [1.0] * 10, config(interval=200)))
    assert result["below_one"]["mean_cls"] == 1 and result["below_one"]["share"] == 0


def test_falls_of_several_runs_are_over_one_window(tmp_path):
    """The longest: else a run with shorter windows would seem to fall further."""
    folders = [
        write(tmp_path / f"{c}", FALLING, SLOWLY, SET_ONCE, config(interval=c)) for c in (20, 80)
    ]
    given = [load_run(folder) for folder in folders]
    results = [diagnose(run, run.weighting.pairs[0], given) for run in given]
    # Lines 19 to 79: 8, 4, 2, 2.
    assert [r["falls_faster"]["cls"]["first_window"] for r in results] == [4.0, 4.0]
    assert "last tenth / first 80 iterations" in report(results)


def test_the_gain_over_the_twin(tmp_path):
    def score(value):
        return [{"iteration": 200, "bbox/AP": value}]

    adapted = write(tmp_path / "a", FALLING, SLOWLY, SET_ONCE, extra=score(25.0))
    twin = write(tmp_path / "b", FALLING, SLOWLY, [1.0] * 10, config("Fixed"), extra=score(27.5))
    given = [load_run(folder) for folder in (adapted, twin)]
    first, second = (diagnose(run, run.weighting.pairs[0], given) for run in given)
    assert first["gain"] == {"AP": -2.5, "over": "1:1"}
    assert first["advice"][-1] == "AP -2.5 against 1:1 of the same settings."
    assert second["advice"] == ["Weights 1:1, the baseline: nothing was weighted."]


def test_a_box_loss_that_falls_faster(tmp_path):
    result = only(write(tmp_path / "a", SLOWLY, FALLING, SET_ONCE))
    assert result["falls_faster"]["holds"] == "no"
    assert any("The box loss fell faster" in line for line in result["advice"])
    result = only(write(tmp_path / "b", SLOWLY, [2 * loss for loss in SLOWLY], SET_ONCE))
    assert result["falls_faster"]["holds"] == "even"


def test_a_loss_that_rises_has_no_half_of_its_fall(tmp_path):
    result = only(write(tmp_path / "a", FALLING, SLOWLY[::-1], SET_ONCE))
    assert result["falls_faster"]["box"]["half_done"] is None
    assert "box 1.3 (-)" in report([result])


def test_fixed_weights(tmp_path):
    settings = config("Fixed", interval=40)
    result = only(write(tmp_path / "one", FALLING, SLOWLY, [1.0] * 10, settings))
    assert result["below_one"]["holds"] == "no" and result["gap"]["holds"] == "yes"
    assert result["weights"] == "Fixed 1:1"
    assert result["advice"] == ["Weights 1:1, the baseline: nothing was weighted."]
    result = only(write(tmp_path / "quarter", FALLING, SLOWLY, [0.25] * 10, settings))
    assert result["below_one"] == {
        **{"holds": "yes", "mean_cls": 0.25, "mean_box": 1.0, "share": 1.0}
    }
    assert result["gap"]["holds"] == "no" and result["gap"]["mean_ratio"] == 0.25
    assert "further apart than the paper" in result["advice"][-1]


def test_a_weight_that_came_down_to_almost_nothing(tmp_path):
    result = only(write(tmp_path / "a", FALLING, SLOWLY, [1.0] + 9 * [0.013]))
    low = result["advice"][0]
    assert low.startswith("w_cls came down to 0.013 at iteration 40 and stayed there; 80% of the")
    assert "this loss went from 8 to 4" in low and "Try MODEL.ALWA.RULE balance, or to leave" in low
    settings = config(rule="balance", interval=40)
    weights = [1.0, 0.013, 0.013] + 7 * [0.6]
    result = only(write(tmp_path / "b", FALLING, SLOWLY, weights, settings))
    assert "left it again (now 0.6); 20% of the run" in result["advice"][0]
    assert "RULE balance" not in result["advice"][0]


def test_a_weight_of_0_and_weights_that_are_both_0(tmp_path):
    result = only(write(tmp_path / "a", FALLING, SLOWLY, [1.0] + 9 * [0.0]))
    assert "held no box loss" in result["advice"][0] and result["gap"]["smallest_ratio"] == 0
    folder = write(tmp_path / "b", FALLING, SLOWLY, [0.0] * 10, config("Fixed"))
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    write_run(folder, [line | {"alwa/weight_box_reg": 0.0} for line in lines], config("Fixed"))
    assert only(folder)["gap"]["mean_ratio"] == 0


def test_a_weight_that_stays_near_1_and_a_run_too_short(tmp_path):
    result = only(write(tmp_path / "a", FALLING, SLOWLY, [1.0] + 9 * [0.995]))
    said = "w_cls stayed at 0.995 or above: weighting has nothing to do here."
    assert result["advice"][0] == said
    result = only(write(tmp_path / "b", FALLING[:3], SLOWLY[:3], SET_ONCE[:3]))
    assert "1 update in 60 iterations: too few" in result["advice"][0]


def test_a_weight_that_changes_more_often_than_it_is_logged(tmp_path):
    settings = config(interval=10)
    result = only(write(tmp_path / "a", FALLING, SLOWLY, [0.5] * 10, settings))
    assert "every 10 iterations, and the log has a line every 20" in result["advice"][0]
    assert "set once" not in " ".join(result["advice"])
    assert "Logged were 0.5 to 1." in result["advice"][0]
    # After the update at 10 it is 1 as far as the log knows, until the one at 20.
    assert result["below_one"]["mean_cls"] == pytest.approx((10 + 180 * 0.5) / 190)
    near_one = only(write(tmp_path / "b", FALLING, SLOWLY, [0.995] * 10, settings))
    assert "nothing to do" not in " ".join(near_one["advice"])


def test_a_frozen_run(tmp_path):
    settings = config(interval=40, FREEZE_AFTER=130)
    result = only(write(tmp_path / "a", FALLING, SLOWLY, SET_ONCE, settings))
    assert result["weights"] == "ALWA_2 authors C=40, frozen after 130"
    assert "kept by all 2 updates" in result["advice"][0]


def test_the_two_cycle(tmp_path):
    cycle = [1.0, 0.5, 0.5, 0.98, 0.98, 0.52, 0.52, 0.97, 0.97, 0.97]
    line, _ = only(write(tmp_path / "a", FALLING, SLOWLY, cycle))["advice"]
    # Kept by steps: 1, 0.5, 0.98, 0.52, 0.97; every second one: 1, 0.98, 0.97 and 0.5, 0.52.
    assert "about 0.51 and 0.98" in line and "RULE balance" in line
    settings = config(rule="balance", interval=40)
    result = only(write(tmp_path / "b", FALLING, SLOWLY, cycle, settings))
    assert result["advice"] == [TWIN]


def test_independent_values_are_no_two_cycle():
    rng = np.random.default_rng(0)
    flagged = [weight_course.two_cycle(rng.uniform(0.3, 1, 30)) for _ in range(200)]
    assert sum(found is not None for found in flagged) <= 10  # 4 here: rare, not never
    noise = rng.normal(0, 0.03, (200, 30))
    cycles = [weight_course.two_cycle(np.tile([1.0, 0.5], 15) + row) for row in noise]
    assert all(cycles)
    assert weight_course.two_cycle(np.linspace(1, 0.2, 10)) is None


def test_the_table_and_json(tmp_path, capsys):
    folders = [
        write(tmp_path / "first", FALLING, SLOWLY, SET_ONCE),
        write(tmp_path / "rpn", FALLING, SLOWLY, [1.0] * 10, None, ("rpn_cls", "rpn_loc")),
    ]
    output = tmp_path / "new" / "diagnoses.json"
    assert main(["diagnose", *map(str, folders), "--json", str(output)]) == 0
    header, first, second, *_ = capsys.readouterr().out.splitlines()
    assert (
        first.split()
        == (
            "first head ALWA_2 authors C=40 - yes: 0.17 (40), box 0.75 (80) "
            "yes: 0.5, box 1; 100% yes: 0.5, least 0.5; 100%"
        ).split()
    )
    assert header.index("(i) ") == first.index("yes: 0.17") == second.index("yes: 0.17")
    assert [result["pair"] for result in json.loads(output.read_text())] == ["head", "RPN"]


def test_losses_that_are_not_finite_are_null_in_json(tmp_path):
    nan, output = float("nan"), tmp_path / "a.json"
    folder = write(tmp_path / "a", [nan] * 10, SLOWLY, SET_ONCE)
    assert main(["diagnose", str(folder), "--json", str(output)]) == 0
    (result,) = json.loads(output.read_text())
    assert result["falls_faster"]["cls"]["ratio"] is None
    assert result["falls_faster"]["holds"] == "unknown"


@pytest.mark.parametrize("names, message", [(None, "no such file"), (("new", "old"), "no pair")])
def test_mistakes_are_one_line_and_exit_code_2(names, message, tmp_path, capsys):
    folder = tmp_path / "a"
    if names:
        write(folder, FALLING, SLOWLY, SET_ONCE, names=names)
    assert main(["diagnose", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("alwa-d2 diagnose: ") and message in error and error.count("\n") == 1
