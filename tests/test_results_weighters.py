"""The tables of docs/results/weighters.md, computed anew from the scores of the runs beside it."""

import math
import statistics

from conftest import REPO
from published import (
    as_texts,
    by_label,
    by_loss,
    differences,
    error_of_differences,
    gain,
    mean_and_sd,
    paired,
    read,
    row,
    table,
    with_t_interval,
)
from scipy.stats import t

PAGE = (REPO / "docs" / "results" / "weighters.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())  # of sentences, wherever their lines end


def best_settings(cells):
    """Of each method the setting with the highest mean; the first of equals."""
    best = {}
    for setting, cell in cells.items():
        method = setting.split()[0]
        if method not in best or gain(cell, cells[best[method]]) > 0:
            best[method] = setting
    return set(best.values())


def two_steps(name):
    """
    Of each method the setting that was best on two seeds, on five others.

    Returns:
        The second step: box loss -> setting -> seed -> AP; the standard error and the freedom of
        a difference; and the table's rows, for each box loss, best first
    """
    first, second = by_loss(name, (0, 1)), by_loss(f"{name}_best", range(2, 7))
    assert [len(cells) for cells in first.values()] == [63, 63]
    error, freedom = error_of_differences(second)
    rows = {}
    for loss, cells in second.items():
        assert cells.keys() == best_settings(first[loss]) | {"Fixed 1:1"}
        base = cells["Fixed 1:1"]
        rows[loss] = [
            row(
                setting,
                mean_and_sd(first[loss][setting]),
                mean_and_sd(cells[setting]),
                *(
                    ("", "")
                    if cells[setting] is base
                    else differences(cells[setting], base, error, freedom)
                ),
            )
            for setting in sorted(cells, key=lambda setting: -gain(cells[setting], base))
        ]
    return second, error, freedom, rows


def test_the_comparison_of_weighters():
    second, error, freedom, rows = two_steps("weighters")
    assert f"for the {freedom // 4} rows of both tables" in PAGE
    for lines in rows.values():
        assert "".join(lines) in PAGE
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
        assert " and ".join(f"{x:+.1f}" for x in gains[setting]) in TEXT
    assert f"interval: ±{alone:.1f})" in PAGE and f"(±{together:.1f})" in PAGE


def test_the_comparison_on_blood_cells():
    second, error, freedom, rows = two_steps("weighters_bccd")
    section = PAGE.partition("## On blood cells\n")[2].partition("\n## ")[0]
    text, number = " ".join(section.split()), freedom // 4
    assert f"for the {number} rows of both tables" in text
    for lines in rows.values():
        assert "".join(lines) in section
    clear = t.ppf(1 - 0.025 / number, freedom) * error
    gains = {
        loss: {setting: gain(cell, cells["Fixed 1:1"]) for setting, cell in cells.items()}
        for loss, cells in second.items()
    }
    assert max(max(found.values()) for found in gains.values()) < clear
    assert f"Only a gain above {clear:.1f} points would have been clear." in text
    rising = [found["Schedule cls 0.25 to 1 in 50"] for found in gains.values()]
    assert f"({rising[0]:+.1f} and {rising[1]:+.1f})" in text
    mean, _ = as_texts(statistics.fmean(rising), error / math.sqrt(2), freedom, 1)
    assert f"The mean over both is {mean.replace('(', '(alone ')}." in text
    three = [gains["giou"][name] for name in ("Fixed 2:1", "Inverse 1:1", "CoV decay 0.9 sum 4.0")]
    assert f"ahead with GIoU**, by {min(three):.1f} to {max(three):.1f} points" in text
    for name, found in gains["smooth_l1"].items():
        if name.startswith(("Fixed", "Inverse", "CoV")):
            assert abs(found) < 0.2, name
    first = by_loss("weighters_bccd", (0, 1))["smooth_l1"]
    best = max(first, key=lambda name: sum(first[name].values()))
    assert best == "ALWA balance C 10 smoothing 0.9" and abs(gains["smooth_l1"][best]) < 0.1
    assert f"{statistics.fmean(first[best].values()):.1f} in step 1, and level" in text


def test_a_rising_classification_weight_on_blood_cells_once_more():
    """Eight seeds each, paired."""
    seeds = range(7, 15)
    losses = by_loss("rising_bccd", seeds)
    section = PAGE.partition("## Blood cells, once more\n")[2].partition("\n## ")[0]
    text = " ".join(section.split())
    names = {
        "cls 0.25 to 1 in 50": "classification weight 0.25 to 1 in 50",
        "both 0.25 to 1 in 50": "both weights 0.25 to 1 in 50",
    }
    for loss, said in (("giou", "GIoU"), ("smooth_l1", "Smooth L1")):
        base = losses[loss]["1:1"]
        assert row(said, "1:1", mean_and_sd(base), "") in section
        for setting, name in names.items():
            own = losses[loss][setting]
            assert row(said, name, mean_and_sd(own), paired(own, base)[0]) in section, name

    def over_both_losses(own, base):
        gains = [
            statistics.fmean(cells[own][seed] - cells[base][seed] for cells in losses.values())
            for seed in seeds
        ]
        return with_t_interval(gains)

    one, both = (over_both_losses(name, "1:1") for name in names)
    ahead = sum(
        cells["both 0.25 to 1 in 50"][seed] > cells["1:1"][seed]
        for cells in losses.values()
        for seed in seeds
    )
    assert f"in {ahead} of 16 runs" in text
    assert f"The mean over both losses is {one}" in text
    assert f"With both weights it is {both} in the mean over both losses" in text
    assert f"minus both weights is {over_both_losses(*names)}" in text


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
        assert row(said, names["1:1"], mean_and_sd(base), "", "") in PAGE
        for setting in list(names)[1:]:
            cell = losses[loss][setting]
            cells = (mean_and_sd(cell), *differences(cell, base, error, freedom))
            assert row(said, names[setting], *cells) in PAGE, (loss, setting)
    for setting, text in (
        (
            "cls 0.25 to 1 in 200",
            "by {} points in the mean over both losses (alone {}; for the five settings {}, for the ten "
            "rows of the table {})",
        ),
        ("1:1, warm-up 200", "gained {} (alone {}; for the five settings {})"),
    ):
        mean = statistics.fmean(gain(cells[setting], cells["1:1"]) for cells in losses.values())
        alone, *together = (
            as_texts(mean, error / math.sqrt(2), freedom, rows)[1] for rows in (1, 5, 10)
        )
        assert text.format(f"{mean:.1f}", alone, *together) in TEXT
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
    assert f"the mean is {mean:+.1f} ({mean - reach:+.1f} to {mean + reach:+.1f})" in TEXT


def of_1_1_to_seed_11(loss):
    first, second = by_loss("weighters", (0, 1)), by_loss("weighters_best", range(2, 7))
    third = by_loss("rising", range(7, 12))[loss]["1:1"]
    scores = first[loss]["Fixed 1:1"] | second[loss]["Fixed 1:1"] | third
    assert sorted(scores) == list(range(12))
    return scores


def test_weights_1_1_over_all_twelve_seeds():
    scores = of_1_1_to_seed_11("giou")
    assert f"(0 to 11) have {statistics.fmean(scores.values()):.1f}" in TEXT
    assert f"(seed 5) has only {scores[5]:.1f}" in TEXT and scores[5] == min(scores.values())
    cells = by_loss("weighters_best", range(2, 7))["giou"]
    base = cells.pop("Fixed 1:1")
    others = {seed: score for seed, score in base.items() if seed != 5}
    ahead = [
        text.format(gain(cells[setting], others), gain(cells[setting], base))
        for setting, text in (
            ("Uncertainty lr 0.01", "`Uncertainty` is ahead by {:.1f} in place of {:.1f}, and"),
            ("Schedule cls 0.5 to 1 in 200", "the rising weight by {:.1f} in place of {:.1f}."),
        )
    ]
    assert f"Without this seed {' '.join(ahead)}" in TEXT


def test_the_best_few_at_other_learning_rates():
    cells = read("weighters_rates", ("weighting", "rate"), range(2, 7))
    rates, settings = ("0.02", "0.04", "0.08"), dict.fromkeys(setting for setting, _ in cells)
    by_rate = {rate: {name: cells[name, rate] for name in settings} for rate in rates}
    # The runs at 0.04 chose the settings.
    error, freedom = error_of_differences({rate: by_rate[rate] for rate in ("0.02", "0.08")})
    stock = [statistics.fmean(by_rate[rate]["Fixed 1:1"].values()) for rate in rates]
    assert row("Fixed 1:1", *(f"{mean:.1f}" for mean in stock), "", "") in PAGE
    assert f"its AP is {stock[2] - stock[1]:.1f} points higher" in PAGE
    for setting in settings.keys() - {"Fixed 1:1"}:
        gains = [gain(c[setting], c["Fixed 1:1"]) for c in by_rate.values()]
        scores = [f"{mean + more:.1f} ({more:+.1f})" for mean, more in zip(stock, gains)]
        mean = (gains[0] + gains[2]) / 2
        to_base = as_texts(mean, error / math.sqrt(2), freedom, len(settings) - 1)
        assert row(setting, *scores, *to_base) in PAGE, setting
        assert mean < gains[1]


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
        assert row(said, *plan, *scores, *to_base) in PAGE, (loss, plan)
    mean, _ = as_texts(statistics.fmean(gains.values()), error / math.sqrt(len(gains)), freedom, 1)
    assert f"The mean of the twelve differences is {mean}." in TEXT
    # Which rate and warm-up are best for 1:1 in the mean over both losses.
    stock = {
        plan: {loss: both[(loss, *plan)]["1:1"] for loss in ("giou", "smooth_l1")} for plan in plans
    }
    means = {
        plan: statistics.fmean(statistics.fmean(cell.values()) for cell in found.values())
        for plan, found in stock.items()
    }
    assert max(means, key=means.get) == ("200", "0.08")
    more = [
        paired(cell, stock["50", "0.04"][loss])[0] for loss, cell in stock["200", "0.08"].items()
    ]
    assert f"higher by {more[0]} with GIoU, and {more[1]} with Smooth L1" in TEXT
    # And on other seeds.
    inverse = by_loss("inverse", range(17, 27))
    later = {loss: dict(cells["Fixed 1:1"]) for loss, cells in inverse.items()}
    later["giou"] |= read("weighters_tuned", ("weighting", "rate"), range(12, 17))[
        "Fixed 1:1", "0.08"
    ]
    said = "have an AP of {:.1f} with GIoU, and {:.1f} with Smooth L1. With 0.04 and 50"
    assert (
        said.format(*(statistics.fmean(later[loss].values()) for loss in stock["50", "0.04"]))
        in TEXT
    )
    early = [statistics.fmean(of_1_1_to_seed_11(loss).values()) for loss in stock["50", "0.04"]]
    assert "With 0.04 and 50 the seeds 0 to 11 have {:.1f} and {:.1f}.".format(*early) in TEXT
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
    assert row("Fixed 1:1", *map(mean_and_sd, stock), "", "") in PAGE
    error, freedom = error_of_differences(by_rate)
    for setting in settings.keys() - {"Fixed 1:1"}:
        own = [by_rate[rate][setting] for rate in rates]
        mean = statistics.fmean(map(gain, own, stock))
        to_base = as_texts(mean, error / math.sqrt(2), freedom, len(settings) - 1)
        assert row(setting, *map(mean_and_sd, own), *to_base) in PAGE, setting
    inverse = [by_rate[rate]["Inverse 2:1"] for rate in rates]
    ahead = sum(own[seed] > base[seed] for own, base in zip(inverse, stock) for seed in base)
    assert f"in {ahead} of ten runs" in TEXT


def test_inverse_once_more():
    """Ten seeds each, paired: a t interval of the differences."""
    gains = {}
    for loss, said in (("giou", "GIoU"), ("smooth_l1", "Smooth L1")):
        base, own = (
            by_loss("inverse", range(17, 27))[loss][name] for name in ("Fixed 1:1", "Inverse 2:1")
        )
        gains[said] = [own[seed] - base[seed] for seed in range(17, 27)]
        scores = (mean_and_sd(base), mean_and_sd(own))
        assert row(said, *scores, with_t_interval(gains[said])) in PAGE
    both = [statistics.fmean(pair) for pair in zip(*gains.values())]
    assert f"The mean over both losses is {with_t_interval(both)}." in TEXT


def test_three_times_as_long():
    rows = list(table("weighters_long", range(2, 7), "Fixed 1:1"))
    assert len(rows) == 7 and "".join(rows) in PAGE
    low = by_label("weighters_long", range(2, 7))
    base = low["Fixed 1:1"]
    found = by_label("weighters_long_rates", range(2, 7), "setting")
    found["Uncertainty, rate 0.08"] = low["Uncertainty lr 0.01"]
    assert len(found) == 6
    assert f"for these {len(found)} rows" in TEXT.split("Is it only the rate?")[1]
    error, freedom = error_of_differences({"all": {"1:1": base, **found}})
    for name, cell in found.items():
        to_base = as_texts(gain(cell, base), error, freedom, len(found))
        assert row(name, mean_and_sd(cell), *to_base) in PAGE, name
    # At equal rates; the lead is largest at the best rate of both.
    rates = ("0.16", "0.32")
    to_one = [
        as_texts(gain(found[f"Uncertainty, rate {x}"], found[f"1:1, rate {x}"]), error, freedom, 1)
        for x in rates
    ]
    twice = found["1:1, rate 0.16"]
    said = "Minus 1:1 at the same rate it is {} at 0.16, and {} at 0.32."
    assert said.format(*(alone for alone, _ in to_one)) in TEXT
    assert max(found, key=lambda name: gain(found[name], base)) == "Uncertainty, rate 0.16"
    assert gain(twice, base) > gain(found["1:1, rate 0.32"], base)
    again = by_label("uncertainty_long", range(7, 12))
    one, own = again["1:1"], again["Uncertainty"]
    difference = with_t_interval([own[seed] - one[seed] for seed in one])
    said = "1:1 has {}, `Uncertainty` {}, and the difference is {}."
    assert said.format(mean_and_sd(one), mean_and_sd(own), difference) in TEXT
    ten = [found[f"{name}, rate 0.16"] | again[name] for name in ("Uncertainty", "1:1")]
    assert f"Over all ten seeds it is {paired(*ten)[0]}." in TEXT
    advice = " ".join((REPO / "docs" / "weighting.md").read_text(encoding="utf-8").split())
    assert f"[twice this rate gained {gain(twice, base):.1f} points]" in advice


def test_all_methods_in_a_faster_rcnn():
    rows = list(table("weighters_two_stage", range(2, 7), "Fixed 1:1"))
    assert len(rows) == 14 and f"for these {len(rows) - 1} rows" in TEXT
    assert "".join(rows) in PAGE
    cells = by_label("weighters_two_stage", range(2, 7))
    base, best = cells["Fixed 1:1"], cells["SelfBalance period 0 ratio 0.5"]
    assert all(best[seed] > base[seed] for seed in base)
    assert f"by {gain(best, base):.1f} points, in all five runs" in TEXT


def test_self_balance_in_a_faster_rcnn_once_more():
    """Ten seeds each, paired."""
    cells = by_label("two_stage_balance", range(7, 17))
    assert len(cells) == 4

    def to(base, setting):
        return with_t_interval([cells[setting][seed] - cells[base][seed] for seed in range(7, 17)])

    for setting, cell in cells.items():
        difference = to("Fixed 1:1", setting) if setting != "Fixed 1:1" else ""
        assert row(setting, mean_and_sd(cell), difference) in PAGE, setting
    one, both = (
        to(name, "SelfBalance period 0 ratio 0.5")
        for name in ("Fixed box head 0.5", "Fixed box head 0.5, RPN 1.25")
    )
    assert f"minus this one fixed weight is {one}, minus both fixed weights {both}." in TEXT
    base, best = cells["Fixed 1:1"], cells["SelfBalance period 0 ratio 0.5"]
    assert all(best[seed] > base[seed] for seed in base)
