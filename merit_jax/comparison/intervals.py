"""Bootstrap intervals of the difference between two methods, over seeds and questions at the same time."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

Answers = Mapping[str, Mapping[str, float]]
"""Suite -> question's id -> score in 0..1, of one run."""

LEVEL = 0.95
"""Nominal coverage of an interval."""
RESAMPLES = 9999
"""Bootstrap samples of each interval."""
BATCH = 250
"""Bootstrap samples that are in memory together."""


class Interval(NamedTuple):
    """A `LEVEL` interval of the difference between two methods.

    Attributes:
        low: Lower end.
        high: Upper end.
        seeds: Seeds that were resampled; with one seed the interval covers the choice of questions alone.
        questions: Different questions, over all suites.
    """

    low: float
    high: float
    seeds: int
    questions: int


def bootstrap_interval(
    ours: Mapping[int, Sequence[Answers]], theirs: Mapping[int, Sequence[Answers]]
) -> Interval | None:
    """Returns the percentile bootstrap interval of the mean over suites of ours − theirs, paired by seed and question.

    Seeds, and the questions of each suite, are drawn with replacement independently of each other (Owen 2007, "The pigeonhole
    bootstrap"), and every suite counts once. The samples are the same in every call.

    Args:
        ours: Seed -> answers of each of its runs, which are averaged.
        theirs: The same of the other method.

    Returns:
        The interval; None if there is no seed or suite in common, a suite has no question in common, or there are too few
        questions to be resampled.
    """
    matrices = differences(ours, theirs)
    if not matrices:
        return None
    sizes = [len(matrices[0]), *(matrix.shape[1] for matrix in matrices)]
    drawn = [axis for axis, size in enumerate(sizes) if size > 1]
    if not drawn:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of samples without any answer: no interval
        found = stats.bootstrap(
            [np.arange(sizes[axis]) for axis in drawn],
            _statistic(matrices, sizes, drawn),
            vectorized=True,
            confidence_level=LEVEL,
            n_resamples=RESAMPLES,
            batch=BATCH,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    if not np.isfinite(found).all():
        return None
    return Interval(float(found.low), float(found.high), sizes[0], sum(sizes[1:]))


def differences(
    ours: Mapping[int, Sequence[Answers]], theirs: Mapping[int, Sequence[Answers]]
) -> list[Float[np.ndarray, "seeds _questions"]]:
    """Returns ours − theirs per suite, for the seeds that both have and every question of any of them.

    Each side is the mean over its runs of the seed; NaN where a run of the seed was not given the question. Empty without a
    common seed or suite, or if a suite has no common question.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    runs = [run for seed in seeds for run in (*ours[seed], *theirs[seed])]
    suites = [suite for suite in runs[0] if all(suite in run for run in runs)] if runs else []
    matrices = []
    for suite in suites:
        rows = [_row([run[suite] for run in ours[seed]], [run[suite] for run in theirs[seed]]) for seed in seeds]
        questions = list(dict.fromkeys(question for row in rows for question in row))
        if not questions:
            return []
        matrices.append(np.array([[row.get(question, np.nan) for question in questions] for row in rows]))
    return matrices


def _row(ours: Sequence[Mapping[str, float]], theirs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Question -> mean of ours − mean of theirs, of the questions that all of them were given."""
    common = [question for question in ours[0] if all(question in run for run in (*ours, *theirs))]
    ours_mean, theirs_mean = (
        np.mean([[run[question] for question in common] for run in side], axis=0) for side in (ours, theirs)
    )
    return dict(zip(common, (ours_mean - theirs_mean).tolist(), strict=True))


def _statistic(matrices: Sequence[np.ndarray], sizes: Sequence[int], drawn: Sequence[int]) -> Callable[..., np.ndarray]:
    """Returns a function of drawn indices, one array per axis of `drawn`, each `[..., size]`: the mean over suites."""
    filled = [np.nan_to_num(matrix) for matrix in matrices]
    known = [np.isfinite(matrix).astype(float) for matrix in matrices]

    def mean_over_suites(*indices: np.ndarray, axis: int) -> np.ndarray:
        weights = [np.ones((1, size)) for size in sizes]
        for place, index in zip(drawn, indices, strict=True):
            weights[place] = _counts(index.reshape(-1, sizes[place]), sizes[place])
        seeds, *questions = weights
        with np.errstate(invalid="ignore"):
            means = [
                (seeds * (count @ values.T)).sum(axis=1) / (seeds * (count @ there.T)).sum(axis=1)
                for count, values, there in zip(questions, filled, known, strict=True)
            ]
        return np.mean(means, axis=0).reshape(indices[0].shape[:-1])

    return mean_over_suites


def _counts(indices: Int[np.ndarray, "b n"], size: int) -> Float[np.ndarray, "b n"]:
    """Returns how often each of `size` things was drawn, for each row of indices."""
    rows = len(indices)
    flat = (indices + size * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * size).reshape(rows, size).astype(float)
