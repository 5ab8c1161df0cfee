"""Bootstrap intervals against the closed form of the crossed bootstrap's variance, a simulation, and cases known by hand."""

import numpy as np
import pytest
from scipy import stats

from merit_jax.comparison import intervals
from merit_jax.comparison.intervals import bootstrap_intervals, differences


def answers(*matrices):
    """Seed -> one run: suite -> question -> score; a matrix per suite, NaN where a seed was not given the question."""
    return {
        seed: [
            {
                f"suite {s}": {f"q{q}": float(score) for q, score in enumerate(matrix[seed]) if np.isfinite(score)}
                for s, matrix in enumerate(matrices)
            }
        ]
        for seed in range(len(matrices[0]))
    }


def zeros(*matrices):
    return answers(*(np.where(np.isfinite(matrix), 0.0, np.nan) for matrix in matrices))


def bootstrap_interval(ours, theirs):
    (found,) = bootstrap_intervals([(ours, theirs)])
    return found


def drawn(rng, seeds, questions, by_seed, by_question, noise):
    """Differences with the given deviations of seeds, questions and their interaction."""
    a, b, e = rng.normal(size=(seeds, 1)), rng.normal(size=questions), rng.normal(size=(seeds, questions))
    return by_seed * a + by_question * b + noise * e


def resampling_variance(matrix):
    """Variance of the mean when rows and columns are drawn with replacement, independently: sums over all pairs of entries."""
    n, q = matrix.shape
    squares = (matrix**2).sum() + (1 - 1 / q) * (matrix.sum(1) ** 2).sum() + (1 - 1 / n) * (matrix.sum(0) ** 2).sum()
    return (squares + (1 - 1 / n) * (1 - 1 / q) * matrix.sum() ** 2) / matrix.size**2 - matrix.mean() ** 2


@pytest.mark.parametrize(("by_seed", "by_question"), [(0.0, 1.0), (0.2, 1.0), (0.0, 0.0)])
def test_its_width_is_that_of_the_crossed_bootstraps_variance(by_seed, by_question):
    rng = np.random.default_rng(3)
    suites = [drawn(rng, 12, size, by_seed, by_question, noise=1.0) for size in (150, 60)]
    sharing = [matrix.mean(axis=1, keepdims=True) for matrix in suites]  # one draw of the seeds serves both suites
    own = [matrix - rows for matrix, rows in zip(suites, sharing, strict=True)]
    variance = sum(resampling_variance(matrix) for matrix in own) / 4 + np.var(np.mean(sharing, axis=0)) / 12
    found = bootstrap_interval(answers(*suites), zeros(*suites))
    assert found.high - found.low == pytest.approx(2 * stats.norm.ppf(0.975) * np.sqrt(variance), rel=0.06)
    assert (found.low + found.high) / 2 == pytest.approx(np.mean([m.mean() for m in suites]), abs=0.1 * variance**0.5)
    assert (found.seeds, found.questions) == (12, 210)


def test_one_seed_is_the_bootstrap_over_questions_alone():
    scores = np.random.default_rng(0).integers(-1, 2, size=(1, 300)).astype(float)
    found = bootstrap_interval(answers(scores), zeros(scores))
    half = stats.norm.ppf(0.975) * scores.std() / np.sqrt(300)
    assert (found.low, found.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=0.1 * half)
    assert found.seeds == 1


@pytest.mark.parametrize(
    ("seeds", "deviations", "expected"),
    [
        (5, (0.02, 1.0, 0.3), (0.91, 0.99)),  # questions vary most: right
        (5, (0.0, 0.0, 1.0), (0.98, 1.0)),  # runs vary on one question: too wide
        (2, (1.0, 0.1, 0.1), (0.45, 0.63)),  # seeds vary most: too narrow, the fewer the more
        (5, (1.0, 0.1, 0.1), (0.78, 0.9)),
    ],
)
def test_how_often_it_holds_the_true_difference(monkeypatch, seeds, deviations, expected):
    """The shares that the guide on experiments states."""
    monkeypatch.setattr(intervals, "RESAMPLES", 499)
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        suites = [drawn(rng, seeds, 40, *deviations)]
        found = bootstrap_interval(answers(*suites), zeros(*suites))
        hits += found.low <= 0 <= found.high
    assert expected[0] <= hits / 200 <= expected[1]


def test_every_suite_counts_once():
    one, many = np.ones((3, 10)), np.zeros((3, 500))
    assert bootstrap_interval(answers(one, many), zeros(one, many))[:2] == (0.5, 0.5)


def test_what_both_methods_find_hard_does_not_widen_the_interval():
    theirs = np.random.default_rng(0).random((4, 50))
    found = bootstrap_interval(answers(theirs + 0.25), answers(theirs))
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))


def test_seeds_are_drawn_for_all_suites_together():
    seeds = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    matrix = np.repeat(seeds[:, None], 40, axis=1)
    found = bootstrap_interval(answers(matrix, matrix), zeros(matrix, matrix))
    assert found.high == pytest.approx(stats.norm.ppf(0.975) / np.sqrt(8), abs=0.07), "independent draws: 0.49"
    assert bootstrap_interval(answers(matrix, -matrix), zeros(matrix, matrix))[:2] == (0, 0)


def test_differences_are_of_common_seeds_and_questions_and_of_the_mean_over_a_seeds_runs():
    ours = {0: [{"s": {"a": 1.0, "b": 0.5}}], 1: [{"s": {"b": 1.0, "c": 1.0}}], 2: [{"s": {"a": 1.0}}]}
    theirs = {
        0: [{"s": {"a": 0.0, "b": 0.5, "d": 1.0}}, {"s": {"a": 1.0, "b": 1.0, "d": 1.0}}],
        1: [{"s": {"c": 0.0, "b": 1.0}}],
    }
    (found,) = differences(ours, theirs)
    np.testing.assert_allclose(found, [[0.5, -0.25, np.nan], [np.nan, 0, 1]])


def test_a_question_that_only_some_seeds_have_counts_where_it_is():
    matrix = np.full((4, 60), np.nan)
    for seed in range(4):
        matrix[seed, 10 * seed : 10 * seed + 30] = 1.0
    assert bootstrap_interval(answers(matrix), zeros(matrix))[:2] == (1, 1)


def test_without_anything_in_common_there_is_no_interval():
    run = {"s": {"a": 1.0, "b": 0.0}}
    assert bootstrap_interval({}, {}) is None
    assert bootstrap_interval({0: [run]}, {1: [run]}) is None
    assert bootstrap_interval({0: [{}]}, {0: [run]}) is None
    assert bootstrap_interval({0: [run]}, {0: [{"s": {"c": 1.0}}]}) is None
    assert bootstrap_interval({0: [{"s": {"a": 1.0}}]}, {0: [{"s": {"a": 0.0}}]}) is None, "nothing can be drawn"
    ours = {0: [{"s": {"a": 1.0}}], 1: [{"s": {"b": 1.0}}]}
    assert bootstrap_interval(ours, ours) is None, "some draws have no answer at all"


def test_rare_samples_without_an_answer_do_not_cost_the_interval():
    """Two seeds of one suite with 5 of 8 questions each, 2 in common: some draws have none of the questions of their seed."""
    matrix = np.random.default_rng(0).random((2, 8))
    matrix[0, 5:] = matrix[1, :3] = np.nan
    weights = [np.random.default_rng(1).multinomial(size, np.full(size, 1 / size), 200_000) for size in matrix.shape]
    known = np.isfinite(matrix)
    there = np.einsum("bn,nq,bq->b", weights[0], known, weights[1])
    means = np.einsum("bn,nq,bq->b", weights[0], np.nan_to_num(matrix), weights[1])[there > 0] / there[there > 0]
    assert 0 < np.mean(there == 0) < intervals.WITHOUT
    found = bootstrap_interval(answers(matrix), zeros(matrix))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.01)


def test_it_is_the_same_each_time_and_whatever_else_is_compared():
    rng = np.random.default_rng(0)
    matrices = [rng.random((3, 20)), rng.random((3, 20)), rng.random((2, 20)), rng.random((3, 7))]
    pairs = [(answers(matrix), zeros(matrix)) for matrix in matrices]
    pairs.insert(1, (answers(matrices[0]), {}))
    found = bootstrap_intervals(pairs)
    for together, pair in zip(found, pairs, strict=True):
        assert together == bootstrap_interval(*pair) or together == pytest.approx(bootstrap_interval(*pair))
    assert [interval and interval[2:] for interval in found] == [(3, 20), None, (3, 20), (2, 20), (3, 7)]
    assert bootstrap_intervals([]) == []
