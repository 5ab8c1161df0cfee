"""Spreads and paired tests against enumeration of all signs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit_jax.comparison.statistics import holm, paired, spread


def by_seed(values):
    return dict(enumerate(values))


def enumerated(differences):
    """P(rank sum >= observed) over all signs; zeros left out, ties share their mean rank."""
    sizes = [abs(d) for d in differences if d]
    ranks = [sum(other < size for other in sizes) + (1 + sum(other == size for other in sizes)) / 2 for size in sizes]
    observed = sum(rank for rank, d in zip(ranks, [d for d in differences if d], strict=True) if d > 0)
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return sum(total >= observed for total in sums) / len(sums)


def test_a_spread_is_the_mean_and_the_sample_deviation_over_seeds():
    assert spread({0: [0.5], 1: [0.7], 2: [0.9]}) == (pytest.approx(0.7), pytest.approx(0.2), 3, 3, None)
    assert spread({3: [0.5]}) == (0.5, None, 1, 1, None)


def test_several_runs_of_a_seed_are_not_independent_seeds():
    """Two seeds of three partitions that differ within a seed alone: no deviation over seeds, and not one of six runs."""
    found = spread({0: [0.1, 0.5, 0.9], 1: [0.5, 0.1, 0.9]})
    assert (found.mean, found.std) == (pytest.approx(0.5), pytest.approx(0, abs=1e-12))
    assert (found.n, found.runs, found.within) == (2, 6, pytest.approx(0.4))
    assert spread({0: [0.0, 0.0, 0.0], 1: [1.0]}).mean == 0.5, "every seed counts once"
    assert spread({0: [0.2, 0.4], 1: [0.9]}).within == pytest.approx(np.std([0.2, 0.4], ddof=1))


def test_the_papers_five_seeds_give_its_p():
    merit, joint = [57.1, 57.4, 56.4, 56.9, 57.3], [54.5, 54.3, 54.1, 54.6, 54.3]
    found = paired(by_seed(merit), by_seed(joint))
    assert (found.n, found.p) == (5, 0.03125)
    assert found.difference == pytest.approx(np.mean(merit) - np.mean(joint))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=8))
def test_p_is_exact_with_ties_and_equal_scores(differences):
    ours, theirs = [0.1 * d + 0.3 for d in differences], [0.3] * len(differences)
    assert paired(by_seed(ours), by_seed(theirs)).p == pytest.approx(enumerated(differences))


@pytest.mark.parametrize("zeros", [1, 6])
def test_p_is_exact_with_many_seeds_of_which_some_are_equal(zeros):
    differences = [0.0] * zeros + [0.01 * (i + 1) * (-1) ** (i % 3 == 0) for i in range(14)]
    assert paired(by_seed(differences), by_seed([0.0] * len(differences))).p == pytest.approx(enumerated(differences))


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_least_p_is_two_to_the_minus_n_and_that_of_no_difference_one(n):
    ours = by_seed(0.5 + 0.01 * i for i in range(n))
    assert paired(ours, by_seed([0.0] * n)).p == pytest.approx(2.0**-n)
    assert paired(by_seed([0.0] * n), ours).p == 1
    assert paired(ours, ours).p == 1


def test_only_seeds_that_both_have_are_paired():
    found = paired({0: 0.1, 3: 0.9, 7: 0.4}, {7: 0.2, 3: 0.8, 1: 1.0})
    assert (found.n, found.difference) == (2, pytest.approx(0.15))
    assert paired({0: 0.5}, {1: 0.5}) is None


def test_rounding_errors_break_no_tie():
    ours, theirs = by_seed([0.3, 0.8, 0.4]), by_seed([0.3 - 0.1, 0.7, 0.5])
    assert len({ours[i] - theirs[i] for i in range(2)}) == 2
    assert paired(ours, theirs).p == pytest.approx(enumerated([1, 1, -1]))
    assert not math.isnan(paired(by_seed([0.1 + 0.2]), by_seed([0.3])).p)
    assert paired(by_seed([0.1 + 0.2]), by_seed([0.3])).p == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # as R defines p.adjust(p, "holm"): pmin(1, cummax((n - i + 1) * p[o]))[ro]
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.03125, 0.5, 0.03125, 1.0, 0.0625], [0.15625, 1.0, 0.15625, 1.0, 0.1875]),
        ([0.2, 0.001, 0.04], [0.2, 0.003, 0.08]),
        ([0.7], [0.7]),
        ([], []),
    ],
)
def test_holm_is_as_r_defines_it(given, expected):
    assert holm(given) == pytest.approx(expected)


def test_holm_keeps_the_chance_of_any_false_positive():
    p_values = np.random.default_rng(0).random((2000, 12))
    assert np.mean([min(holm(row)) <= 0.05 for row in p_values.tolist()]) == pytest.approx(0.05, abs=0.015)
