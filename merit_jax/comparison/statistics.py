"""Means and deviations over runs, and paired tests of one method against another, seed by seed."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

DIGITS = 9
"""Decimals that count in a difference of scores; rounding errors must not break ties between ranks."""


class Spread(NamedTuple):
    """Values of one quantity over runs.

    Attributes:
        mean: Arithmetic mean.
        std: Standard deviation with n − 1 in the denominator; None for one run.
        n: Runs.
    """

    mean: float
    std: float | None
    n: int


class Paired(NamedTuple):
    """A paired comparison of two methods.

    Attributes:
        difference: Mean of ours − theirs.
        n: Pairs, one per seed.
        p: Of the one-sided Wilcoxon signed-rank test that ours is greater; at least 2^−n.
    """

    difference: float
    n: int
    p: float


def spread(values: Sequence[int | float]) -> Spread:
    """Returns the mean and the standard deviation of at least one value.

    Examples:
        >>> spread([1, 2, 3])
        Spread(mean=2.0, std=1.0, n=3)
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, len(values))


def paired(ours: Mapping[int, int | float], theirs: Mapping[int, int | float]) -> Paired | None:
    """Compares two methods on the seeds that both have; None if there is none.

    The p-value is exact for up to 50 pairs without ties in the differences and up to 13 with; equal scores are left out of
    the ranks (Wilcoxon's own rule), and where all are equal p is 1.

    Args:
        ours: Seed -> score, higher is better.
        theirs: The same of the other method.

    Examples:
        >>> paired({0: 0.5, 1: 0.75, 2: 1.0}, {0: 0.25, 1: 0.25, 2: 0.25})
        Paired(difference=0.5, n=3, p=0.125)
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    differences = np.round([ours[seed] - theirs[seed] for seed in seeds], DIGITS)
    p = 1.0
    if differences.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of small samples, where its p-value is exact
            p = float(stats.wilcoxon(differences, alternative="greater").pvalue)
    return Paired(float(np.mean(differences)), len(seeds), p)


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
