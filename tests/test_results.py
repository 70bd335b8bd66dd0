"""The tables of docs/results/notes.md and of docs/results.md, computed anew from the scores of the
runs beside them."""

import math
import re
import statistics

import pytest
from conftest import REPO
from published import gain, mean_and_sd, read, row

PAGE = (REPO / "docs" / "results" / "notes.md").read_text(encoding="utf-8")
LOSSES = ("giou", "l1", "smooth_l1", "diou", "ciou")
WEIGHTINGS = ("ALWA_1 authors", "ALWA_1 balance", "ALWA_2 authors", "ALWA_2 balance")
RATIOS = ("0.75:0.75", "0.5:0.75", "0.5:0.5", "0.25:0.5", "0.25:0.25", "1:2")
WINDOWS = ("10", "50", "100", "200")
NONE = "–"


def table_1():
    return read("table1", ("box loss", "weights"))


def table_2(metric="AP"):
    return read("table2", ("box loss", "C", "weighting"), metric=metric)


def blood_cells(metric="AP"):
    return read("bccd", ("box loss", "C", "weighting"), seeds=(0,), metric=metric)


def delta(own, base):
    """Mean difference, and p of Student's t with two degrees of freedom, which has a closed form."""
    if own is None:
        return NONE
    differences = [own[seed] - base[seed] for seed in base]
    mean, sd = statistics.fmean(differences), statistics.stdev(differences)
    ratio = abs(mean) / (sd / math.sqrt(3))
    p = 1 - ratio / math.sqrt(ratio * ratio + 2)
    return f"{mean:+.1f} ({f'{p:.3f}' if p >= 0.001 else '< 0.001'})"


def over_the_losses(pairs):
    """Mean of five gains, and its interval of 95 % (Student's t with four degrees of freedom)."""
    gains = [gain(own, base) for own, base in pairs]
    mean, half = statistics.fmean(gains), 2.7764 * statistics.stdev(gains) / math.sqrt(5)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def alwa(cells, loss, c, weighting):
    """With windows of 200 there is no run of `authors`: the rules do not differ yet."""
    return cells[loss, c, weighting.replace("authors", "balance") if c == "200" else weighting]


@pytest.mark.parametrize("loss", LOSSES)
def test_table_2_with_fixed_weights(loss):
    stock = [table_2(metric)[loss, NONE, "1:1"] for metric in ("AP", "AP50", "AP75")]
    half = table_2()[loss, NONE, "0.5:1"]
    others = {ratio: table_1().get((loss, ratio)) for ratio in RATIOS} | {"0.5:1": half}
    best = max((r for r in others if others[r]), key=lambda r: sum(others[r].values()))
    cells = [delta(half, stock[0]), best, f"{gain(others[best], stock[0]):+.1f}"]
    assert row(loss, *map(mean_and_sd, stock), mean_and_sd(half), *cells) in PAGE


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_table_2_with_alwa(loss, weighting):
    cells = table_2()
    found = [delta(alwa(cells, loss, c, weighting), cells[loss, NONE, "1:1"]) for c in WINDOWS]
    assert row(loss, weighting, *found) in PAGE


@pytest.mark.parametrize("read_cells", [table_2, blood_cells])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_over_the_box_losses(weighting, read_cells):
    cells, texts = read_cells(), []
    for c in WINDOWS:
        pairs = [(alwa(cells, loss, c, weighting), cells[loss, NONE, "1:1"]) for loss in LOSSES]
        texts.append(over_the_losses(pairs))
    assert row(weighting, *texts) in PAGE
    if read_cells is table_2 and weighting.startswith("ALWA_2"):
        rule = weighting.removeprefix("ALWA_2 ")
        short = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
        assert row(f"`{rule}`", *texts) in short


@pytest.mark.parametrize("loss", LOSSES)
def test_table_1(loss):
    cells = table_1()
    base = cells[loss, "1:1"]
    found = [delta(cells.get((loss, ratio)), base) for ratio in RATIOS]
    assert row(loss, mean_and_sd(base), *found) in PAGE


def test_table_1_over_the_box_losses():
    cells, texts = table_1(), []
    for ratio in RATIOS[:-1]:
        texts.append(over_the_losses([(cells[x, ratio], cells[x, "1:1"]) for x in LOSSES]))
    assert f"| all five, mean | | {' | '.join(texts)} | {NONE} |\n" in PAGE


@pytest.mark.parametrize("loss", LOSSES)
def test_blood_cells_with_fixed_weights(loss):
    stock = [blood_cells(metric)[loss, NONE, "1:1"] for metric in ("AP", "AP50", "AP75")]
    half = blood_cells()[loss, NONE, "0.5:1"]
    assert row(loss, *(f"{s[0]:.1f}" for s in stock), f"{gain(half, stock[0]):+.1f}") in PAGE


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_blood_cells_with_alwa(loss, weighting):
    cells = blood_cells()
    base = cells[loss, NONE, "1:1"]
    found = [f"{gain(alwa(cells, loss, c, weighting), base):+.1f}" for c in WINDOWS]
    assert row(loss, weighting, *found) in PAGE


@pytest.mark.parametrize("first, then", [("0.5:1", "1:1"), ("1:1", "0.5:1")])
@pytest.mark.parametrize("loss", ["giou", "smooth_l1"])
def test_two_phases_of_fixed_weights(loss, first, then):
    axes = ("box loss", "first 50", "then")
    cells = [read("early", axes, metric=metric) for metric in ("AP", "AP50", "AP75")]
    own = [cell[loss, first, then] for cell in cells]
    stock = [cell[loss, "1:1", "1:1"] for cell in cells]
    assert row(loss, "1:1", "1:1", *map(mean_and_sd, stock), "") in PAGE
    assert row(loss, first, then, *map(mean_and_sd, own), delta(own[0], stock[0])) in PAGE


def test_many_classes():
    cells, five = read("many_classes", ("weighting",)), table_2()
    assert f"| 1:1 | {mean_and_sd(cells['1:1',])} | | |\n" in PAGE
    for label in ("authors, C 100", "balance, C 100", "balance, C 10"):
        rule, c = label.split(", C ")
        gain_of_80 = delta(cells[label,], cells["1:1",])
        gain_of_5 = delta(five["giou", c, f"ALWA_2 {rule}"], five["giou", NONE, "1:1"])
        assert row(label, mean_and_sd(cells[label,]), gain_of_80, gain_of_5) in PAGE


def test_the_short_page_has_the_scores_of_the_notes():
    """Of a ResNet-18, whose runs have no file of scores."""
    short = (REPO / "docs" / "results.md").read_text(encoding="utf-8")
    table = short[short.index("| detector, box loss") : short.index("A second series")]
    scores = re.findall(r"\d+\.\d ± \d\.\d", table)
    assert len(scores) == 19
    for score in scores:
        assert f"| {score} |" in PAGE, score
