"""The tables of a sweep: means, paired tests, and scores that come from elsewhere."""

import re
import shutil
from types import SimpleNamespace

import pytest
from conftest import REPO

pytest.importorskip("detectron2", reason="needs Detectron2")

from sweep_stub import (  # noqa: F401 (a fixture)
    records,
    rows,
    stubbed_folder,
    sweep,
    table,
    write,
)

from alwa_d2.sweep.paired import difference, paired_p
from alwa_d2.sweep.record import FINISHED, Result
from alwa_d2.sweep.sweep import Cell, Run, Sweep
from alwa_d2.sweep.table import to_markdown

# ---- statistics


def test_paired_p_is_that_of_students_own_example():
    """Student (1908): hours of sleep gained by ten patients with two drugs; t = 4.0621, p = 0.00283."""
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    differences = [b - a for a, b in zip(first, second)]
    assert paired_p(differences) == pytest.approx(0.00283289, abs=1e-8)
    assert paired_p([-d for d in differences]) == pytest.approx(0.00283289, abs=1e-8)


def test_paired_p_with_two_degrees_of_freedom():
    """There p = 1 - |t| / sqrt(t^2 + 2): differences 1, 2, 3 have t = 2 sqrt(3)."""
    assert paired_p([1, 2, 3]) == pytest.approx(1 - (12 / 14) ** 0.5, rel=1e-12)


def test_no_p_without_three_pairs_or_without_variance():
    assert paired_p([]) is paired_p([1.0, 2.0]) is None
    assert paired_p([0.1 + 0.2, 0.3, 0.3]) is paired_p([0.0] * 3) is None
    assert difference({0: 1.0, 1: 3.0}, {1: 1.5, 2: 9.0}) == "+1.5 (–)"
    assert difference({0: 1.0}, {1: 1.0}) == "–"


# ---- results.md


def test_the_table_by_hand(folder):
    assert sweep(write(folder), "--jobs", "2") == 0
    header, cells = table(folder)
    assert header == ["weights", "seeds", "AP", "Δ AP (p)", "s/iter", "overhead %"]
    # 10, 11, 14: mean 35/3, variance ((5/3)^2 + (2/3)^2 + (7/3)^2) / 2 = 13/3, sd 2.08. Half the
    # weight is 5 less with each seed: no variance. The medians of 0.1 0.2 0.9 and of twice that.
    assert cells["1.0:1"] == ["3", "11.7 ± 2.1", "baseline", "0.200", "–"]
    assert cells["0.5:1"] == ["3", "6.7 ± 2.1", "-5.0 (–)", "0.400", "+100.0"]
    by_run = {(row["weights"], row["seed"]): row for row in rows(folder)}
    assert len(by_run) == 6
    row = by_run["0.5:1", "2"]
    assert (row["bbox/AP"], row["alwa/weight_cls"], row["status"]) == ("9.0", "0.5", "finished")
    assert float(row["seconds_per_iteration"]) == pytest.approx(0.4)
    assert float(row["wall_seconds"]) > 0


def results_of(scores, **changes):
    """A sweep's results made by hand: label -> seed -> AP."""
    cells = [Cell({"w": label}, {}) for label in scores]
    settings = dict(seeds=[0, 1, 2, 3], baseline={"w": "a"}, metrics=["bbox/AP"]) | changes
    spec = SimpleNamespace(path=REPO / "x.yaml", cells=cells, **settings)
    spec.baseline_of = lambda cell: Sweep.baseline_of(spec, cell)
    results = []
    for cell in cells:
        for seed, score in scores[cell.labels["w"]].items():
            run = Run(cell, seed, "0", REPO / "none")
            results.append(Result(run, FINISHED, "", 1.0, {"bbox/AP": score}, {}, 0.1))
    return spec, results


def markdown(spec, results):
    """results.md, its columns not aligned."""
    return re.sub(" +", " ", to_markdown(spec, results))


def test_differences_are_paired_over_the_common_seeds():
    scores = {"a": {0: 10.0, 1: 12.0, 2: 20.0}, "b": {0: 11.0, 1: 14.0, 2: 23.0, 3: 90.0}}
    text = markdown(*results_of(scores))
    # b: mean 138/4, variance (23.5^2 + 20.5^2 + 11.5^2 + 55.5^2) / 3 = 4185 / 3, sd 37.3.
    # Differences 1, 2, 3: p = 1 - sqrt(12/14) = 0.0742.
    assert "| b | 4 | 34.5 ± 37.3 | +2.0 (0.074) | 0.100 | +0.0 |" in text
    assert "| a | 3 | 14.0 ± 5.3 | baseline | 0.100 | – |" in text


def test_one_seed_has_no_sd_and_no_baseline_no_difference():
    text = markdown(*results_of({"a": {0: 10.0}, "b": {}}, baseline={}))
    assert "| a | 1 | 10.0 ± – | – | 0.100 | – |" in text
    assert "| b | 0 | – | – | – | – |" in text
    assert "No baseline is named." in text


def test_intervals_by_hand():
    """b - a is 1, 2, 3: half of what is left of it, -0.5, 0, 0.5, is left of b, and 0.5, 0, -0.5 of
    a."""
    scores = {"a": {0: 10.0, 1: 12.0, 2: 20.0}, "b": {0: 11.0, 1: 14.0, 2: 23.0}, "c": {0: 5.0}}
    text = markdown(*results_of(scores, seeds=[0, 1, 2]))
    # s^2 = (4 * 0.25) / 2; s * sqrt(2 / 3) * t(0.975; 2) = 0.7071 * 0.8165 * 4.3027 = 2.484.
    assert "| w | Δ AP | alone | all rows |" in text
    assert "| b | +2.0 | -0.5 to +4.5 | -0.5 to +4.5 |" in text
    # Two rows: each at 97.5 %.
    scores["c"] = {seed: score - 3 for seed, score in scores["b"].items()}
    text = markdown(*results_of(scores, seeds=[0, 1, 2]))
    # s^2 = 4 / 3 / 4: the residues are 2 / 3 and -1 / 3. t(0.975; 4) = 2.776, t(0.9875; 4) = 3.495.
    assert "| b | +2.0 | +0.7 to +3.3 | +0.4 to +3.6 |" in text
    assert "| c | -1.0 | -2.3 to +0.3 | -2.6 to +0.6 |" in text
    assert "Intervals" not in markdown(*results_of({"a": {0: 10.0}, "b": {0: 9.0}}))


def test_scores_that_are_no_numbers_are_left_out_and_named():
    nan = float("nan")
    scores = {"a": {0: 10.0, 1: 12.0, 2: 20.0}, "b": {0: 11.0, 1: nan, 2: 23.0}, "c": {0: nan}}
    text = markdown(*results_of(scores))
    # 11 and 23: sd sqrt(72); differences 1 and 3, too few for a p.
    assert "| b | 3 | 17.0 ± 8.5 | +2.0 (–) |" in text and "| c | 1 | – | – |" in text
    odd = text.split("Scores that are no numbers, left out above:\n")[1]
    assert "b seed 1" in odd and "c seed 0" in odd and odd.count("bbox/AP is nan") == 2


def test_a_table_needs_no_data(folder, capsys):
    """Whoever has the scores makes the table; only what is trained is checked as a training is."""
    entry = {"name": "gone", "format": "voc", "root": "nowhere", "split": "train"}
    opts = {"MODEL.RPN.NMS_THRESH": 0.7, "DATASETS.REGISTER": [entry]}
    path = write(folder, opts=opts, seeds=[0, 1])
    for option in ([], ["--print-commands"], ["--run", "0" * 12]):
        assert sweep(path, *option) == 2
        assert "DATASETS.REGISTER[0] (gone)" in capsys.readouterr().err
    assert sweep(path, "--table-only") == 0
    assert "0 of 4 runs have finished" in (folder / "out" / "results.md").read_text()


# ---- results.csv


def test_results_from_elsewhere_are_not_trained_again(folder):
    assert sweep(write(folder)) == 0
    whole, text = rows(folder), (folder / "out" / "results.md").read_text()
    for seeds, name in (([0], "first.csv"), ([1], "second.csv")):
        assert sweep(write(folder, seeds=seeds), "--table-only") == 0
        (folder / "out" / "results.csv").rename(folder / name)
    shutil.rmtree(folder / "out")
    files = ["--results", "first.csv", "--results", "second.csv"]
    assert sweep(write(folder), *files, "--print-commands") == 0 and not records(folder)
    assert sweep(write(folder), *files) == 0
    assert {name.split("-")[1] for name in records(folder)} == {"seed2"}
    timing = {"wall_seconds": ""}
    assert [row | timing for row in rows(folder)] == [row | timing for row in whole]
    assert (folder / "out" / "results.md").read_text() == text


def test_scores_are_not_lost_with_their_folders(folder, capsys):
    assert sweep(write(folder, seeds=[0, 1])) == 0
    before = (folder / "out" / "results.csv").read_text()
    for path in folder.glob("out/*-seed1-*"):
        shutil.rmtree(path)
    capsys.readouterr()
    for options in ([], ["--table-only"]):
        assert sweep(write(folder, seeds=[0, 1]), *options) == 2
        error = capsys.readouterr().err
        assert "has 2 finished runs whose folders are gone, such as 1.0_1-seed1-" in error
        assert "--results out/results.csv" in error and len(records(folder)) == 2
        assert (folder / "out" / "results.csv").read_text() == before
    kept = ["--table-only", "--results", "out/results.csv"]
    assert sweep(write(folder, seeds=[0, 1]), *kept) == 0
    assert (folder / "out" / "results.csv").read_text() == before
    # Also where they are of other seeds or settings; and without the file they are trained.
    capsys.readouterr()
    for other in (["--table-only"], ["--table-only", "MODEL.RPN.NMS_THRESH", "0.6"]):
        assert sweep(write(folder, seeds=[0]), *other) == 2
        assert "of other settings or seeds; move the file" in capsys.readouterr().err
        assert (folder / "out" / "results.csv").read_text() == before
    (folder / "out" / "results.csv").unlink()
    assert sweep(write(folder, seeds=[0, 1])) == 0 and len(records(folder)) == 4


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda text: text.replace("hash", "hush"), "the first line has no hash"),
        (lambda text: text.replace("bbox/AP", "bbox/AQ"), "the first line has no bbox/AP"),
        (lambda text: text.replace(",finished", ",1,finished"), "run 1 has other columns"),
        (lambda text: text[: text.rindex(",")], "run 2 has other columns"),
        (lambda text: text.replace("10.0", "ten"), "could not convert string to float: 'ten'"),
        (
            lambda text: "",
            "the first line has no bbox/AP, seconds_per_iteration, wall_seconds, status",
        ),
        (None, "No such file"),
    ],
)
def test_files_that_are_no_results(folder, capsys, change, words):
    assert sweep(write(folder, seeds=[0])) == 0
    file = folder / "out" / "results.csv"
    text = file.read_text()
    shutil.rmtree(folder / "out")
    if change:
        (folder / "a.csv").write_text(change(text))
    capsys.readouterr()
    assert sweep(write(folder, seeds=[0, 1]), "--results", "a.csv") == 2
    error = capsys.readouterr().err
    assert words in error and "--results a.csv: expected a results.csv with bbox/AP" in error
    assert error.count("\n") == 1 and not records(folder) and not file.exists()
