"""Scores of several seeds: their mean and spread, and a cell compared with another seed by seed."""

import statistics

NONE = "–"  # in the table, where there is no number
MIN_PAIRS = 3  # of two pairs a t-test tells nothing: it has one degree of freedom
# Equal differences of decimal fractions differ by rounding, of 1e-16; scores have 1e-4 at most.
NO_VARIANCE = 1e-9  # standard deviation over the largest difference


def mean_and_sd(values: list[float]) -> str:
    if not values:
        return NONE
    sd = f"{statistics.stdev(values):.1f}" if len(values) > 1 else NONE
    return f"{statistics.fmean(values):.1f} ± {sd}"


def paired_p(differences: list[float]) -> float | None:
    """Two-sided p of Student's paired t-test; None for fewer than three pairs or no variance."""
    from scipy.stats import ttest_1samp  # of the differences, it is ttest_rel

    if len(differences) < MIN_PAIRS:
        return None
    if not statistics.stdev(differences) > NO_VARIANCE * max(map(abs, differences)):
        return None
    return float(ttest_1samp(differences, 0.0).pvalue)


def difference(own: dict[int, float], base: dict[int, float]) -> str:
    """Mean difference over the common seeds and its p; arguments are seed -> value."""
    differences = [value - base[seed] for seed, value in own.items() if seed in base]
    if not differences:
        return NONE
    p = paired_p(differences)
    digits = NONE if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"
    return f"{statistics.fmean(differences):+.1f} ({digits})"
