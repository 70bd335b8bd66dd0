"""The tables of docs/results/notes.md, weighters.md, and of docs/results.md, computed anew from the
scores of the runs beside them."""

import csv
import math
import re
import statistics

import numpy as np
import pytest
from conftest import REPO
from scipy.stats import t

PAGE = (REPO / "docs" / "results" / "notes.md").read_text(encoding="utf-8")
WEIGHTERS = (REPO / "docs" / "results" / "weighters.md").read_text(encoding="utf-8")
WEIGHTERS_TEXT = " ".join(WEIGHTERS.split())  # of sentences, wherever their lines end
LOSSES = ("giou", "l1", "smooth_l1", "diou", "ciou")
WEIGHTINGS = ("ALWA_1 authors", "ALWA_1 balance", "ALWA_2 authors", "ALWA_2 balance")
RATIOS = ("0.75:0.75", "0.5:0.75", "0.5:0.5", "0.25:0.5", "0.25:0.25", "1:2")
WINDOWS = ("10", "50", "100", "200")
NONE = "–"


def read(name, axes, seeds=(0, 1, 2), metric="AP"):
    """Labels of the axes -> seed -> score, of the cells that have all seeds."""
    cells = {}
    with open(REPO / "docs" / "results" / f"{name}.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cell = cells.setdefault(tuple(row[axis] for axis in axes), {})
            cell[int(row["seed"])] = float(row[f"bbox/{metric}"])
    return {key: cell for key, cell in cells.items() if cell.keys() == set(seeds)}


def table_1():
    return read("table1", ("box loss", "weights"))


def table_2(metric="AP"):
    return read("table2", ("box loss", "C", "weighting"), metric=metric)


def blood_cells(metric="AP"):
    return read("bccd", ("box loss", "C", "weighting"), seeds=(0,), metric=metric)


def mean_and_sd(cell):
    values = list(cell.values())
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"


def gain(own, base):
    return statistics.fmean(own[seed] - base[seed] for seed in base)


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


def row(*cells):
    return f"| {' | '.join(cells)} |\n"


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
    assert len(scores) == 17
    for score in scores:
        assert f"| {score} |" in PAGE, score


def by_loss(name, seeds):
    """Box loss -> setting -> seed -> AP."""
    found = {}
    for (loss, setting), cell in read(name, ("box loss", "weighting"), seeds=seeds).items():
        found.setdefault(loss, {})[setting] = cell
    return found


def best_settings(cells):
    """Of each method the setting with the highest mean; the first of equals."""
    best = {}
    for setting, cell in cells.items():
        method = setting.split()[0]
        if method not in best or gain(cell, cells[best[method]]) > 0:
            best[method] = setting
    return set(best.values())


def error_of_differences(losses):
    """Standard error of a difference of two means of five seeds, with one spread for all runs: what
    settings and seeds leave of an analysis of variance, box loss by box loss. And its freedom."""
    squares, freedom = 0.0, 0
    for cells in losses.values():
        scores = np.array([[cell[seed] for seed in sorted(cell)] for cell in cells.values()])
        rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
        squares, freedom = squares + (rest**2).sum(), freedom + 4 * (len(scores) - 1)
    return math.sqrt(squares / freedom * 2 / 5), freedom


def as_texts(mean, error, freedom, rows):
    """A difference with its interval alone, and the interval for all rows."""
    intervals = []
    for tail in (0.025, 0.025 / rows):
        reach = t.ppf(1 - tail, freedom) * error
        intervals.append(f"{mean - reach:+.1f} to {mean + reach:+.1f}")
    return f"{mean:+.1f} ({intervals[0]})", intervals[1]


def differences(cell, base, error, freedom):
    return as_texts(gain(cell, base), error, freedom, freedom // 4)


def test_the_comparison_of_weighters():
    """Of each method the setting that was best on two seeds, on five others."""
    first, second = by_loss("weighters", (0, 1)), by_loss("weighters_best", range(2, 7))
    assert [len(cells) for cells in first.values()] == [63, 63]
    for loss, cells in second.items():
        assert cells.keys() == best_settings(first[loss]) | {"Fixed 1:1"}
    error, freedom = error_of_differences(second)
    rows = freedom // 4
    assert f"for the {rows} rows of both tables" in WEIGHTERS
    for loss, cells in second.items():
        base = cells["Fixed 1:1"]
        for setting, cell in cells.items():
            scores = [setting, mean_and_sd(first[loss][setting]), mean_and_sd(cell)]
            to_base = differences(cell, base, error, freedom) if cell is not base else ("", "")
            assert row(*scores, *to_base) in WEIGHTERS, (loss, setting)
    # Settings that were ahead with both losses; the mean of two gains has half the variance of one.
    both = set.intersection(*(set(cells) for cells in second.values())) - {"Fixed 1:1"}
    gains = {
        setting: [gain(cells[setting], cells["Fixed 1:1"]) for cells in second.values()]
        for setting in both
    }
    alone, together = (
        t.ppf(1 - tail, freedom) * error / math.sqrt(2) for tail in (0.025, 0.025 / 10)
    )
    ahead = {setting for setting in both if statistics.fmean(gains[setting]) > alone}
    assert ahead == {"Inverse 2:1", "Schedule cls 0.5 to 1 in 200", "CoV decay 0.99"}
    for setting in ahead:
        assert statistics.fmean(gains[setting]) < together
        assert " and ".join(f"{x:+.1f}" for x in gains[setting]) in WEIGHTERS_TEXT
    assert f"(±{alone:.1f})" in WEIGHTERS and f"(±{together:.1f})" in WEIGHTERS


def test_a_rising_classification_weight_on_new_seeds():
    names = {
        "1:1": "1:1, warm-up 50",
        "1:1, warm-up 200": "1:1, warm-up 200",
        "cls 0.5 to 1 in 200": "classification weight 0.5 to 1 in 200",
        "cls 0.25 to 1 in 200": "classification weight 0.25 to 1 in 200",
        "box 0.5 to 1 in 200": "box weight 0.5 to 1 in 200",
        "both 0.5 to 1 in 200": "both weights 0.5 to 1 in 200",
    }
    losses = by_loss("rising", range(7, 12))
    error, freedom = error_of_differences(losses)
    for loss, said in (("giou", "GIoU"), ("smooth_l1", "Smooth L1")):
        base = losses[loss]["1:1"]
        assert row(said, names["1:1"], mean_and_sd(base), "", "") in WEIGHTERS
        for setting in list(names)[1:]:
            cell = losses[loss][setting]
            cells = (mean_and_sd(cell), *differences(cell, base, error, freedom))
            assert row(said, names[setting], *cells) in WEIGHTERS, (loss, setting)
    for setting, text in (
        (
            "cls 0.25 to 1 in 200",
            "by {} points in the mean over both losses (alone {}; for all five settings {})",
        ),
        ("1:1, warm-up 200", "gained {} ({}; {})"),
    ):
        mean = statistics.fmean(gain(cells[setting], cells["1:1"]) for cells in losses.values())
        alone, together = as_texts(mean, error / math.sqrt(2), freedom, len(names) - 1)
        alone = alone.partition("(")[2].rstrip(")")
        assert text.format(f"{mean:.1f}", alone, together) in WEIGHTERS_TEXT
    slow = "cls 0.25 to 1 in 200"
    assert all(c[slow][seed] > c["1:1"][seed] for c in losses.values() for seed in c[slow])


def test_a_rising_classification_weight_over_all_ten_seeds():
    gains = []
    for name, seeds, setting, base in (
        ("weighters_best", range(2, 7), "Schedule cls 0.5 to 1 in 200", "Fixed 1:1"),
        ("rising", range(7, 12), "cls 0.5 to 1 in 200", "1:1"),
    ):
        losses = by_loss(name, seeds)
        gains += [
            statistics.fmean(cells[setting][seed] - cells[base][seed] for cells in losses.values())
            for seed in seeds
        ]
    mean, reach = statistics.fmean(gains), t.ppf(0.975, 9) * statistics.stdev(gains) / math.sqrt(10)
    assert f"the mean is {mean:+.1f} ({mean - reach:+.1f} to {mean + reach:+.1f})" in WEIGHTERS_TEXT


def test_weights_1_1_over_all_twelve_seeds():
    first, second = by_loss("weighters", (0, 1)), by_loss("weighters_best", range(2, 7))
    third = by_loss("rising", range(7, 12))["giou"]["1:1"]
    scores = first["giou"]["Fixed 1:1"] | second["giou"]["Fixed 1:1"] | third
    assert sorted(scores) == list(range(12))
    assert f"(0 to 11) have {statistics.fmean(scores.values()):.1f}" in WEIGHTERS_TEXT


def test_the_best_few_at_other_learning_rates():
    cells = read("weighters_rates", ("weighting", "rate"), range(2, 7))
    rates, settings = ("0.02", "0.04", "0.08"), dict.fromkeys(setting for setting, _ in cells)
    by_rate = {rate: {name: cells[name, rate] for name in settings} for rate in rates}
    # The runs at 0.04 chose the settings.
    error, freedom = error_of_differences({rate: by_rate[rate] for rate in ("0.02", "0.08")})
    stock = [statistics.fmean(by_rate[rate]["Fixed 1:1"].values()) for rate in rates]
    assert row("Fixed 1:1", *(f"{mean:.1f}" for mean in stock), "", "") in WEIGHTERS
    assert f"its AP is {stock[2] - stock[1]:.1f} points higher" in WEIGHTERS
    for setting in settings.keys() - {"Fixed 1:1"}:
        gains = [gain(c[setting], c["Fixed 1:1"]) for c in by_rate.values()]
        scores = [f"{mean + more:.1f} ({more:+.1f})" for mean, more in zip(stock, gains)]
        mean = (gains[0] + gains[2]) / 2
        to_base = as_texts(mean, error / math.sqrt(2), freedom, len(settings) - 1)
        assert row(setting, *scores, *to_base) in WEIGHTERS, setting
        assert mean < gains[1]


def test_five_weightings_at_six_learning_rates():
    cells = read("learning_rate", ("weighting", "rate"), range(5))
    rates = ("0.01", "0.04", "0.16", "0.32", "0.64", "2.56")
    weightings = dict.fromkeys(weighting for weighting, _ in cells)
    for weighting in weightings:
        scores = (mean_and_sd(cells[weighting, rate]) for rate in rates)
        assert row(weighting, *scores) in WEIGHTERS, weighting
    near = {rate: {name: cells[name, rate] for name in weightings} for rate in ("0.04", "0.16")}
    error, freedom = error_of_differences(near)
    means = {key: statistics.fmean(cell.values()) for key, cell in cells.items()}
    best = {name: max(rates, key=lambda rate: means[name, rate]) for name in weightings}
    stock = means["1:1", best["1:1"]]
    assert best["1:1"] == "0.04"
    for weighting in weightings.keys() - {"1:1"}:
        score = means[weighting, best[weighting]]
        common, _ = as_texts(means[weighting, "0.04"] - stock, error, freedom, 4)
        there = as_texts(score - stock, error, freedom, 4)
        assert row(weighting, common, best[weighting], f"{score:.1f}", *there) in WEIGHTERS, (
            weighting
        )
    more = [means[name, "0.64"] - means["1:1", "0.64"] for name in ("0.25:0.25", "0.25:1")]
    assert f"{more[0]:.1f} points higher with 0.25:0.25, and {more[1]:.1f} with 0.25:1" in WEIGHTERS
    # The same curve, moved.
    said = ", ".join(
        f"{means['0.25:0.25', four]:.1f} and {means['1:1', one]:.1f}"
        for one, four in zip(("0.01", "0.04", "0.16", "0.64"), ("0.04", "0.16", "0.64", "2.56"))
    )
    assert said in WEIGHTERS_TEXT


def test_uncertainty_with_tuned_rates():
    cells = read("uncertainty", ("box loss", "warm-up", "rate", "weighting"), range(7, 12))
    plans = [(warm_up, rate) for warm_up in ("50", "200") for rate in ("0.04", "0.08", "0.16")]
    names = ("1:1", "Uncertainty")
    both = {
        (loss, *plan): {name: cells[(loss, *plan, name)] for name in names}
        for loss in ("giou", "smooth_l1")
        for plan in plans
    }
    error, freedom = error_of_differences(both)
    gains = {}
    for (loss, *plan), found in both.items():
        base, own = found["1:1"], found["Uncertainty"]
        gains[(loss, *plan)] = gain(own, base)
        to_base = as_texts(gains[(loss, *plan)], error, freedom, len(both))
        scores = (mean_and_sd(base), mean_and_sd(own))
        said = {"giou": "GIoU", "smooth_l1": "Smooth L1"}[loss]
        assert row(said, *plan, *scores, *to_base) in WEIGHTERS, (loss, plan)
    mean, _ = as_texts(statistics.fmean(gains.values()), error / math.sqrt(len(gains)), freedom, 1)
    assert f"The mean of the twelve differences is {mean}." in WEIGHTERS_TEXT
    # Which rate and warm-up are best for 1:1 in the mean over both losses.
    stock = {
        plan: {loss: both[(loss, *plan)]["1:1"] for loss in ("giou", "smooth_l1")} for plan in plans
    }
    means = {
        plan: statistics.fmean(statistics.fmean(cell.values()) for cell in found.values())
        for plan, found in stock.items()
    }
    assert max(means, key=means.get) == ("200", "0.08")
    more, _ = zip(
        *(
            as_texts(gain(cell, stock["50", "0.04"][loss]), error, freedom, 1)
            for loss, cell in stock["200", "0.08"].items()
        )
    )
    assert f"higher by {more[0]} with GIoU, and {more[1]} with Smooth L1" in WEIGHTERS_TEXT
    for loss in ("giou", "smooth_l1"):
        assert all(
            gain(stock["50", rate][loss], stock["50", "0.04"][loss]) < 0
            for rate in ("0.08", "0.16")
        )


def test_all_methods_at_tuned_rates():
    cells = read("weighters_tuned", ("weighting", "rate"), range(12, 17))
    rates, settings = ("0.08", "0.16"), dict.fromkeys(setting for setting, _ in cells)
    by_rate = {rate: {name: cells[name, rate] for name in settings} for rate in rates}
    stock = [by_rate[rate]["Fixed 1:1"] for rate in rates]
    assert row("Fixed 1:1", *map(mean_and_sd, stock), "", "") in WEIGHTERS
    error, freedom = error_of_differences(by_rate)
    for setting in settings.keys() - {"Fixed 1:1"}:
        own = [by_rate[rate][setting] for rate in rates]
        mean = statistics.fmean(map(gain, own, stock))
        to_base = as_texts(mean, error / math.sqrt(2), freedom, len(settings) - 1)
        assert row(setting, *map(mean_and_sd, own), *to_base) in WEIGHTERS, setting
    inverse = [by_rate[rate]["Inverse 2:1"] for rate in rates]
    ahead = sum(own[seed] > base[seed] for own, base in zip(inverse, stock) for seed in base)
    assert f"in {ahead} of ten runs" in WEIGHTERS_TEXT


def test_inverse_once_more():
    """Ten seeds each, paired: a t interval of the differences."""
    gains = {}
    for loss, said in (("giou", "GIoU"), ("smooth_l1", "Smooth L1")):
        base, own = (
            by_loss("inverse", range(17, 27))[loss][name] for name in ("Fixed 1:1", "Inverse 2:1")
        )
        gains[said] = [own[seed] - base[seed] for seed in range(17, 27)]
        scores = (mean_and_sd(base), mean_and_sd(own))
        assert row(said, *scores, with_t_interval(gains[said])) in WEIGHTERS
    both = [statistics.fmean(pair) for pair in zip(*gains.values())]
    assert f"The mean over both losses is {with_t_interval(both)}." in WEIGHTERS_TEXT


def with_t_interval(gains):
    mean = statistics.fmean(gains)
    reach = t.ppf(0.975, len(gains) - 1) * statistics.stdev(gains) / math.sqrt(len(gains))
    return f"{mean:+.1f} ({mean - reach:+.1f} to {mean + reach:+.1f})"
