"""Means and deviations over seeds, paired tests of one method against another, and their correction for number."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from merit_jax.comparison.intervals import Interval

DIGITS = 9
"""Decimals that count in a difference of scores; rounding errors must not break ties between ranks."""


class Spread(NamedTuple):
    """Values of one quantity over the runs of a method.

    Attributes:
        mean: Mean over the seeds, of each seed's mean over its runs.
        std: Standard deviation of the seeds' means, with n − 1 in the denominator; None for one seed.
        n: Seeds.
        runs: Runs; more than seeds where a seed has several (random partitions).
        within: Standard deviation of the runs of one seed, pooled over the seeds; None where each has one run.
    """

    mean: float
    std: float | None
    n: int
    runs: int
    within: float | None


class Paired(NamedTuple):
    """A paired comparison of two methods.

    Attributes:
        difference: Mean of ours − theirs.
        n: Pairs, one per seed.
        p: Of the one-sided Wilcoxon signed-rank test that ours is greater; at least 2^−n.
        holm: `p` corrected for all tests of the experiment; None where it has not been.
        interval: Of the difference; None without answers to the same questions.
    """

    difference: float
    n: int
    p: float
    holm: float | None = None
    interval: Interval | None = None


def spread(values: Mapping[int, Sequence[int | float]]) -> Spread:
    """Returns the mean and the deviation over seeds; several runs of one seed are not counted as independent.

    Args:
        values: Seed -> value of each of its runs; at least one seed, and one run each.

    Examples:
        >>> spread({0: [1], 1: [1, 3], 2: [3]})
        Spread(mean=2.0, std=1.0, n=3, runs=4, within=1.4142135623730951)
    """
    means = [float(np.mean(runs)) for runs in values.values()]
    runs = sum(map(len, values.values()))
    squares = sum(float(np.var(runs)) * len(runs) for runs in values.values())
    return Spread(
        mean=float(np.mean(means)),
        std=float(np.std(means, ddof=1)) if len(means) > 1 else None,
        n=len(means),
        runs=runs,
        within=math.sqrt(squares / (runs - len(means))) if runs > len(means) else None,
    )


def paired(ours: Mapping[int, int | float], theirs: Mapping[int, int | float]) -> Paired | None:
    """Compares two methods on the seeds that both have; None if there is none.

    Equal scores are left out of the ranks (Wilcoxon's own rule), and where all are equal p is 1. The p-value is exact for up to
    50 other pairs whose differences do not tie, and up to 13 where they do.

    Args:
        ours: Seed -> score, higher is better.
        theirs: The same of the other method.

    Examples:
        >>> paired({0: 0.5, 1: 0.75, 2: 1.0}, {0: 0.25, 1: 0.25, 2: 0.25})[:3]
        (0.5, 3, 0.125)
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = np.round([ours[seed] - theirs[seed] for seed in seeds], DIGITS)
    p, ranked = 1.0, differences[differences != 0]
    if ranked.size:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of small samples, where its p-value is exact
            p = float(scipy.stats.wilcoxon(ranked, alternative="greater").pvalue)
    return Paired(float(np.mean(differences)), len(seeds), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number by Holm's step-down method (1979), which bounds the chance of any false positive.

    The smallest of m is multiplied by m, the next by m − 1, and so on; none may fall below the one before, or exceed 1.
    It needs no independence of the tests.

    Examples:
        >>> holm([0.03125, 0.01, 0.5])
        [0.0625, 0.03, 0.5]
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values, float)[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def standard_error(scores: Sequence[Mapping[str, Any]]) -> float:
    """Returns the standard error of the mean accuracy over sets of records, at most: from the binomial error of each.

    Args:
        scores: `Scores` as JSON values, at least one.

    Examples:
        >>> standard_error([{"accuracy": 0.5, "records": 100}])
        0.05
    """
    variances = [score["accuracy"] * (1 - score["accuracy"]) / score["records"] for score in scores]
    return math.sqrt(sum(variances)) / len(variances)
