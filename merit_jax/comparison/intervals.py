"""Bootstrap intervals of the difference between two methods, over seeds and questions at the same time."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Int

Answers = Mapping[str, Mapping[str, float]]
"""Suite -> question's id -> score in 0..1, of one run."""
Pair = tuple[Mapping[int, Sequence[Answers]], Mapping[int, Sequence[Answers]]]
"""Ours and theirs: seed -> answers of each of its runs."""

LEVEL = 0.95
"""Nominal coverage of an interval."""
RESAMPLES = 9999
"""Bootstrap samples of each interval."""
WITHOUT = 0.01
"""Most samples without an answer to one of the suites, as a share; they occur where seeds have few questions in common."""
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


def bootstrap_intervals(pairs: Sequence[Pair]) -> list[Interval | None]:
    """Returns percentile bootstrap intervals of the mean over suites of ours − theirs, paired by seed and question.

    Seeds, and the questions of each suite, are drawn with replacement independently of each other (Owen 2007, "The pigeonhole
    bootstrap"), and every suite counts once. The samples are the same in every call and for all pairs of the same size.

    Args:
        pairs: (ours, theirs) of each comparison: seed -> answers of each of its runs, which are averaged.

    Returns:
        The interval of each pair; None if there is no seed or suite in common, a suite has no question in common, or there are
        too few questions to be resampled: more than `WITHOUT` of the samples have a suite without any answer. Others are those of
        the samples that have answers.
    """
    matrices = [differences(*pair) for pair in pairs]
    sizes = [_sizes(found) for found in matrices]
    result: list[Interval | None] = [None] * len(pairs)
    for size in set(sizes):
        places = [place for place, other in enumerate(sizes) if other == size]
        if max(size, default=1) > 1:
            suites = [np.stack(of_suite) for of_suite in zip(*(matrices[place] for place in places), strict=True)]
            for place, (low, high) in zip(places, _resample(suites, size), strict=True):
                if np.isfinite([low, high]).all():
                    result[place] = Interval(float(low), float(high), size[0], sum(size[1:]))
    return result


def _sizes(matrices: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Returns seeds, then the questions of each suite; empty without suites."""
    return (len(matrices[0]), *(matrix.shape[1] for matrix in matrices)) if matrices else ()


def _resample(suites: Sequence[np.ndarray], sizes: tuple[int, ...]) -> Float[np.ndarray, "pairs 2"]:
    """Returns the ends of the interval of each pair.

    Args:
        suites: Differences `[pairs, seeds, questions]` of each suite, NaN where there is none.
        sizes: Seeds, then the questions of each suite; a single one is not drawn.
    """
    drawn = [axis for axis, size in enumerate(sizes) if size > 1]
    with warnings.catch_warnings():
        # of samples without an answer, see `WITHOUT`
        warnings.simplefilter("ignore", scipy.stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # of pairs without any
        samples = scipy.stats.bootstrap(
            [np.arange(sizes[axis]) for axis in drawn],
            _statistic(suites, sizes, drawn),
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=BATCH,
            method="percentile",
            rng=np.random.default_rng(0),
        ).bootstrap_distribution
        tail = 50 * (1 - LEVEL)
        ends = np.nanpercentile(samples, [tail, 100 - tail], axis=-1).T
    return np.where(np.isnan(samples).mean(axis=-1, keepdims=True) > WITHOUT, np.nan, ends)


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


def _statistic(
    suites: Sequence[np.ndarray], sizes: Sequence[int], drawn: Sequence[int]
) -> Callable[..., Float[np.ndarray, "pairs *samples"]]:
    """Returns a function of drawn indices, one array `[*samples, size]` per axis of `drawn`: each pair's mean over suites."""
    filled = [np.nan_to_num(suite) for suite in suites]
    known = [np.isfinite(suite).astype(float) for suite in suites]

    def mean_over_suites(*indices: np.ndarray, axis: int) -> np.ndarray:
        weights = [np.ones((1, size)) for size in sizes]
        for place, index in zip(drawn, indices, strict=True):
            weights[place] = _counts(index.reshape(-1, sizes[place]), sizes[place])
        seeds, *questions = weights
        with np.errstate(invalid="ignore"):
            means = [
                _weighted(values, seeds, count) / _weighted(there, seeds, count)
                for count, values, there in zip(questions, filled, known, strict=True)
            ]
        return np.mean(means, axis=0).reshape(len(suites[0]), *indices[0].shape[:-1])

    return mean_over_suites


def _weighted(
    values: Float[np.ndarray, "pairs n q"], seeds: Float[np.ndarray, "_b n"], questions: Float[np.ndarray, "_b q"]
) -> Float[np.ndarray, "pairs _b"]:
    """Returns the sum of each pair's values, with the weights of each sample's seeds and questions."""
    return ((values @ questions.T) * seeds.T).sum(axis=1)


def _counts(indices: Int[np.ndarray, "b n"], size: int) -> Float[np.ndarray, "b n"]:
    """Returns how often each of `size` things was drawn, for each row of indices."""
    rows = len(indices)
    flat = (indices + size * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * size).reshape(rows, size).astype(float)
