"""Run folders read: metrics.json and config.yaml, whole and broken, and what a run knows of itself."""

import json

import numpy as np
import pytest
from run_folders import config, constant, drawn, records, write_run

from alwa_d2.analysis import losses_figure
from alwa_d2.analysis.loss_names import label
from alwa_d2.analysis.run_files import flatten
from alwa_d2.analysis.runs import load_run
from alwa_d2.analysis.titles import headline, rule_name
from alwa_d2.cli.main import main
from alwa_d2.errors import UserError


def test_names_of_losses_in_words():
    names = ("cls", "box_reg_stage1", "rpn_loc", "mask")
    assert [label(name) for name in names] == ["classification", "box, stage 1", "RPN box", "mask"]


def test_settings_have_dotted_keys():
    tree = {"A": {"B": {"C": 1}, "D": [2]}, "SEED": None}
    assert flatten(tree) == {"A.B.C": 1, "A.D": [2], "SEED": None}


def test_pairs_of_losses_are_found_by_their_weights(tmp_path):
    folder = write_run(tmp_path / "a", records(("rpn_loc", "box_reg", "new", "cls", "rpn_cls")))
    run = load_run(folder)
    assert run.losses == ["cls", "box_reg", "rpn_cls", "rpn_loc", "new"]
    losses, weights, _ = losses_figure.make_figure([run]).axes
    assert drawn(losses, "points loss_new") and drawn(weights, "alwa/weight_rpn_loc")


def test_after_a_resume_the_later_line_wins(tmp_path):
    again = [{**line, "loss_cls": 9.0} for line in records()[6:9]]
    run = load_run(write_run(tmp_path / "a", records() + again))
    iterations, values = run.series["loss_cls"]
    assert iterations.tolist() == list(range(19, 200, 20))
    assert np.flatnonzero(values == 9.0).tolist() == [6, 7, 8]


def test_of_two_trainings_in_one_folder_the_last_one_counts(tmp_path, capsys):
    """200 iterations of ALWA, then 60 of Fixed, with evaluations that are written out of order."""
    first = records()
    first.insert(4, {"iteration": 6, "bbox/AP": 1.0})
    second = [
        {key: value for key, value in line.items() if "stat" not in key} | {"loss_cls": 5.0}
        for line in records()[:3]
    ]
    second.insert(2, {"iteration": 13, "bbox/AP": 2.0})
    folder = write_run(tmp_path / "a", first + second, config("Fixed"))
    run = load_run(folder)
    assert f"line {len(first) + 1}: a training begins anew" in capsys.readouterr().err
    assert run.series["loss_cls"].tolist() == [[19, 39, 59], [5.0] * 3]
    assert run.series["bbox/AP"].tolist() == [[13], [2.0]] and "alwa/stat_cls" not in run.series
    assert run.iterations == 60 and main(["diagnose", str(folder)]) == 0


def test_settings_of_a_resumed_run_are_its_last_ones(tmp_path, capsys):
    """ALWA, resumed as Fixed and killed before a line was logged: it is no run of fixed weights."""
    run = load_run(write_run(tmp_path / "a", settings=config("Fixed")))
    assert "config.yaml: Fixed weights, but those in metrics.json move" in capsys.readouterr().err
    assert run.fixed_weights is None
    assert constant(tmp_path / "b", 0.5, 1.0).fixed_weights == (0.5, 1.0)
    assert capsys.readouterr().err == ""


def test_a_start_that_logged_nothing_leaves_no_trace(tmp_path, capsys):
    """Killed within the first period: an empty file, to which the next training's lines come."""
    folder = write_run(tmp_path / "a", [])
    with pytest.raises(UserError, match="metrics.json: empty"):
        load_run(folder)
    with open(folder / "metrics.json", "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in records())
    assert load_run(folder).iterations == 200 and capsys.readouterr().err == ""


def test_evaluations_out_of_order_are_of_one_training(tmp_path, capsys):
    lines = records()
    lines.insert(5, {"iteration": 6, "bbox/AP": 1.0})
    run = load_run(write_run(tmp_path / "a", lines))
    assert run.iterations == 200 and run.series["bbox/AP"][0].tolist() == [6, 200]
    assert capsys.readouterr().err == ""


def test_a_line_cut_off_at_the_end_is_left_out_with_a_warning(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    with open(folder / "metrics.json", "a") as file:
        file.write('{"iteration": 219, "loss_c')
    assert main(["plot", str(folder)]) == 0
    assert "line 12: cut off" in capsys.readouterr().err
    assert load_run(folder).iterations == 200


def test_a_line_cut_off_before_a_resume_is_left_out_with_a_warning(tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    lines = (folder / "metrics.json").read_text().splitlines()
    joined = lines[:3] + [lines[3][:40] + lines[3]] + lines[4:]
    (folder / "metrics.json").write_text("\n".join(joined) + "\n")
    run = load_run(folder)
    assert "line 4: begin cut off, left out" in capsys.readouterr().err
    assert list(run.series["loss_cls"][0]) == list(range(19, 200, 20))


def broken_runs():
    good = [json.dumps(line) for line in records()]
    no_pair = [json.dumps({"iteration": 19, "loss_cls": 1.0, "total_loss": 1.0})]
    half = [json.dumps({"iteration": 19, "loss_cls": 1.0, "alwa/weight_cls": 1.0})]
    return {
        "empty": ([], "metrics.json: empty"),
        "one cut line": (['{"iterat'], "line 1: not JSON"),
        "corrupt": ([*good[:2], "oops", *good[2:]], "line 3: not JSON"),
        "list": ([good[0], "[1, 2]", good[1]], "line 2: expected numbers"),
        "no iteration": ([good[0], '{"lr": 1}', good[1]], "line 2: expected numbers"),
        "text": ([good[0], '{"iteration": 1, "lr": "x"}'], "line 2: expected numbers"),
        "stock": (no_pair, "no line has alwa/weight_<loss>"),
        "half": (half, "no line has unweighted/loss_cls"),
    }


@pytest.mark.parametrize("case", broken_runs())
def test_broken_metrics_are_one_line_and_exit_code_2(case, tmp_path, capsys):
    lines, message = broken_runs()[case]
    folder = write_run(tmp_path / "a")
    (folder / "metrics.json").write_text("\n".join(lines))
    assert main(["plot", str(folder)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("alwa-d2 plot: ") and error.count("\n") == 1
    assert not (folder / "losses.png").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"MODEL: {ALWA: {}}",
        b"a: [\nb",
        b"just text",
        b"",
        b"\xff\xfe\xfa",
        b"MODEL: {ALWA: {PAIRS: 3}}",
    ],
)
def test_broken_configs_are_one_line_and_exit_code_2(text, tmp_path, capsys):
    folder = write_run(tmp_path / "a")
    (folder / "config.yaml").write_bytes(text)
    assert main(["plot", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "config.yaml: expected a run's config" in error and error.count("\n") == 1


def test_a_frozen_run_has_no_update_after_that(tmp_path):
    settings = config(interval=20, FREEZE_AFTER=110)
    run = load_run(write_run(tmp_path / "a", settings=settings))
    assert run.updates == [20, 40, 60, 80, 100]
    assert "C = 20 iterations, frozen after 110" in headline(run)
    assert rule_name(run) == "ALWA_2 authors C=20, frozen after 110"
