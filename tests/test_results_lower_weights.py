"""The tables of docs/results/lower_weights.md, computed anew from the scores of the runs beside it."""

import csv
import statistics

from conftest import REPO
from published import (
    as_texts,
    by_label,
    differences,
    error_of_differences,
    gain,
    mean_and_sd,
    paired,
    read,
    row,
)
from scipy.stats import t

PAGE = (REPO / "docs" / "results" / "lower_weights.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())  # of sentences, wherever their lines end


def check_rates(name, rates):
    """Each weighting at all rates, and at the best of these; and (weighting, rate) -> mean."""
    cells = read(name, ("weighting", "rate"), range(5))
    weightings = dict.fromkeys(weighting for weighting, _ in cells)
    for weighting in weightings:
        scores = (mean_and_sd(cells[weighting, rate]) for rate in rates)
        assert row(weighting, *scores) in PAGE, weighting
    means = {key: statistics.fmean(cell.values()) for key, cell in cells.items()}
    best = {name: max(rates, key=lambda rate: means[name, rate]) for name in weightings}
    # Scores vary much more at higher rates.
    near = {rate: {name: cells[name, rate] for name in weightings} for rate in best.values()}
    error, freedom = error_of_differences(near)
    common = best["1:1"]
    for weighting in weightings.keys() - {"1:1"}:
        score, stock = means[weighting, best[weighting]], means["1:1", common]
        here, _ = as_texts(means[weighting, common] - stock, error, freedom, 4)
        if best[weighting] == common:
            there = as_texts(score - stock, error, freedom, 4)
        else:
            there = paired(cells[weighting, best[weighting]], cells["1:1", common], 4)
        assert row(weighting, here, best[weighting], f"{score:.1f}", *there) in PAGE, weighting
    return means


def one_rate(cells, rate, weighting):
    """A difference to 1:1 at a rate, with the spread of that rate's runs: alone, and of four rows."""
    own = {name: cell for (name, its_rate), cell in cells.items() if its_rate == rate}
    error, freedom = error_of_differences({rate: own})
    return differences(own[weighting], own["1:1"], error, freedom)


def test_six_learning_rates_with_sgd():
    means = check_rates("learning_rate", ("0.01", "0.04", "0.16", "0.32", "0.64", "2.56"))
    more = [means[name, "0.64"] - means["1:1", "0.64"] for name in ("0.25:0.25", "0.25:1")]
    cells = read("learning_rate", ("weighting", "rate"), range(5))
    alone, together = one_rate(cells, "0.64", "0.25:1")
    alone = f"{more[1]:.1f} (alone {alone.partition('(')[2]}"
    assert f"{more[0]:.1f} points higher with 0.25:0.25, and {alone} with 0.25:1" in TEXT
    assert together.startswith("-") and one_rate(cells, "2.56", "0.25:1")[1].startswith("+")
    # The same curve, moved.
    said = ", ".join(
        f"{means['0.25:0.25', four]:.1f} and {means['1:1', one]:.1f}"
        for one, four in zip(("0.01", "0.04", "0.16", "0.64"), ("0.04", "0.16", "0.64", "2.56"))
    )
    assert said in TEXT


def test_seven_learning_rates_with_adamw():
    rates = ("0.0008", "0.0032", "0.0128", "0.0512", "0.1024", "0.2048", "0.8192")
    means = check_rates("learning_rate_adamw", rates)
    cells = read("learning_rate_adamw", ("weighting", "rate"), range(5))
    weightings = list(dict.fromkeys(weighting for weighting, _ in cells))

    def behind(weighting):
        return [means["1:1", rate] - means[weighting, rate] for rate in rates[:5]]

    # Clearly worse at the five lower rates, but for one.
    unclear = {
        (weighting, rate)
        for weighting in ("0.25:1", "ALWA authors C 100", "ALWA balance C 100")
        for rate in rates[:5]
        if not one_rate(cells, rate, weighting)[1].partition(" to ")[2].startswith("-")
    }
    assert unclear == {("ALWA balance C 100", "0.0512")}
    lower, both, balance = map(behind, ("0.25:1", "0.25:0.25", "ALWA balance C 100"))
    assert f"by {min(lower):.1f} to {max(lower):.1f} points" in TEXT
    assert f"`balance` is behind by {min(balance):.1f} to {max(balance):.1f}" in TEXT
    lowest, *others = both
    said = f"{-lowest:.1f} points above 1:1 at 0.0008, and {min(others):.0f} to {max(others):.0f}"
    assert f"{said} points below at the next four rates" in TEXT
    high = [means[weighting, "0.2048"] for weighting in weightings]
    assert f"All five fail about alike: {min(high):.1f} to {max(high):.1f}, and 0." in TEXT
    assert max(means[weighting, "0.8192"] for weighting in weightings) < 0.05
    sgd = read("learning_rate", ("weighting", "rate"), range(5))
    gains = [gain(sgd["0.25:0.25", rate], sgd["1:1", rate]) for rate in ("0.04", "0.64")]
    assert f"lost {-gains[0]:.0f} points at 0.04, and gained {gains[1]:.0f} at 0.64" in TEXT


def test_longer_trainings():
    cells = by_label("weighters_long", range(2, 7))
    low, authors = (
        -gain(cells[name], cells["Fixed 1:1"]) for name in ("Fixed 0.25:1", "ALWA authors C 100")
    )
    assert f"0.25:1 was {low:.1f} points behind 1:1, and ALWA's `authors` {authors:.1f}" in TEXT
    error, freedom = error_of_differences({"all": cells})
    assert min(low, authors) > t.ppf(1 - 0.025 / 6, freedom) * error
    rates = by_label("weighters_long_rates", range(2, 7), "setting")
    twice = gain(rates["1:1, rate 0.16"], cells["Fixed 1:1"])
    assert f"at twice the rate it gained {twice:.1f} points" in TEXT


def test_few_images():
    cells = by_label("few_images", range(5))
    scores = read("few_images_evaluations", ("weighting", "iteration"), range(5))
    error, freedom = error_of_differences({"all": cells})
    late = []
    for weighting, cell in cells.items():
        assert scores[weighting, "2000"] == cell
        course = [scores[weighting, str(iteration)] for iteration in range(400, 2001, 400)]
        to_base = ("", "")
        if weighting != "1:1":
            to_base = differences(cell, cells["1:1"], error, freedom)
        assert row(weighting, *map(mean_and_sd, course), *to_base) in PAGE, weighting
        means = [statistics.fmean(x.values()) for x in course]
        assert max(means) == means[-1]
        late.append(means[-1] - means[2])
    assert f"they gained {min(late):.1f} to {max(late):.1f} points only" in TEXT
    balance = cells["ALWA balance C 100"]
    assert all(balance[seed] > cells["1:1"][seed] for seed in balance)
    lost = -gain(cells["0.25:0.25"], cells["1:1"])
    assert f"`balance` was ahead in all five runs, by {gain(balance, cells['1:1']):.1f}," in TEXT
    assert f"lost {lost:.1f} points" in TEXT
    behind = -gain(cells["0.25:1"], cells["1:1"])
    assert f"0.25:1 was {behind:.1f} points behind, clearly" in TEXT
    assert behind > t.ppf(1 - 0.025 / 4, freedom) * error
    many = by_label("weighters_long", range(2, 7))["Fixed 1:1"]
    assert f"1:1 has an AP of {statistics.fmean(many.values()):.1f} [after 1200" in TEXT
    path = REPO / "docs" / "results" / "few_images.csv"
    with open(path, encoding="utf-8", newline="") as file:
        last = {}
        for run in csv.DictReader(file):
            last.setdefault(run["weighting"], set()).add(round(float(run["alwa/weight_cls"]), 2))
    assert last["ALWA balance C 100"] == {1.0}
    authors = last["ALWA authors C 100"]
    assert f"that of `authors` was {min(authors)} to {max(authors)}." in TEXT
