"""The tables of docs/results/lower_weights.md, computed anew from the scores of the runs beside it."""

import math
import statistics

from conftest import REPO
from published import as_texts, error_of_differences, gain, mean_and_sd, read, row

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
        there = as_texts(score - stock, error, freedom, 4)
        assert row(weighting, here, best[weighting], f"{score:.1f}", *there) in PAGE, weighting
    return means


def test_six_learning_rates_with_sgd():
    means = check_rates("learning_rate", ("0.01", "0.04", "0.16", "0.32", "0.64", "2.56"))
    more = [means[name, "0.64"] - means["1:1", "0.64"] for name in ("0.25:0.25", "0.25:1")]
    assert f"{more[0]:.1f} points higher with 0.25:0.25, and {more[1]:.1f} with 0.25:1" in TEXT
    # The same curve, moved.
    said = ", ".join(
        f"{means['0.25:0.25', four]:.1f} and {means['1:1', one]:.1f}"
        for one, four in zip(("0.01", "0.04", "0.16", "0.64"), ("0.04", "0.16", "0.64", "2.56"))
    )
    assert said in TEXT


def test_three_learning_rates_with_adamw():
    cells = read("learning_rate_adamw", ("weighting", "rate"), range(5))
    rates = ("0.0032", "0.0128", "0.0512")
    weightings = dict.fromkeys(weighting for weighting, _ in cells)
    by_rate = {rate: {name: cells[name, rate] for name in weightings} for rate in rates}
    error, freedom = error_of_differences(by_rate)
    for weighting in weightings:
        own = [by_rate[rate][weighting] for rate in rates]
        mean = statistics.fmean(
            gain(by_rate[rate][weighting], by_rate[rate]["1:1"]) for rate in rates
        )
        to_base = as_texts(mean, error / math.sqrt(3), freedom, 4)
        to_base = to_base if weighting != "1:1" else ("", "")
        assert row(weighting, *map(mean_and_sd, own), *to_base) in PAGE, weighting
    # The page says that 0.25:1 is behind at every rate, and how many runs there are.
    for rate in rates:
        assert gain(by_rate[rate]["0.25:1"], by_rate[rate]["1:1"]) < -4
    with open(REPO / "docs" / "results" / "learning_rate_adamw.csv", encoding="utf-8") as file:
        assert f"{len(file.readlines()) - 1} of its 150 runs" in TEXT
