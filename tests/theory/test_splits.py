"""MERIT Props F.6, F.10 and F.11: which splits gain how much, and when the principal axis finds the best."""

import numpy as np
import pytest

from merit_jax import conflict
from merit_jax.diagnostics.predicted_gain import split_gain
from merit_jax.partition import PARTITIONERS
from tests.support import splits, toy

pytestmark = pytest.mark.usefixtures("x64")

FIRST, SECOND, DIAGONAL = np.array([[0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]])
"""The three balanced splits of four datasets: by the sign along axis 1, along axis 2, or along neither."""


def cross(alpha: float, beta: float) -> np.ndarray:
    """Optima at the corners of a rectangle."""
    return np.array([[alpha, beta], [-alpha, beta], [alpha, -beta], [-alpha, -beta]])


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two splits into two have the same groups."""
    return bool(np.array_equal(one, other) or np.array_equal(one, 1 - other))


def gains(M: np.ndarray, split: np.ndarray) -> np.ndarray:
    return split_gain(M, split, [1] * len(M), learning_rate=splits.ETA).gain


def spectral_split(M: np.ndarray) -> np.ndarray:
    """`sign(v_1)` of M, by the project's axes and median."""
    scores = conflict.principal_axes(M / np.abs(M).max(), 1, "double").scores
    return PARTITIONERS["median_split"](scores, [1] * len(M))


@pytest.mark.parametrize(
    ("l1", "l2", "alpha", "beta"), [(2.0, 1.0, 1.0, 0.5), (2.0, 1.0, 0.6, 1.0), (1.0, 0.3, 0.2, 2.0)]
)
def test_proposition_f6_the_three_splits_gain_what_their_axis_is_worth(l1, l2, alpha, beta):
    mixture = splits.mixture(np.diag([l1, l2]), cross(alpha, beta))
    found = mixture.gains(np.stack([FIRST, SECOND, DIAGONAL]))
    half = splits.ETA**2 / 2
    np.testing.assert_allclose(found, [half * l1**3 * alpha**2, half * l2**3 * beta**2, 0], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("alpha", "first"), [(0.55, True), (0.45, False)])
def test_proposition_f6_the_principal_axis_is_the_first_if_gradients_are_longer_along_it(alpha, first):
    """With λ = (2, 1) and β = 1: `λ_1² α² > λ_2² β²` at α = .55 and not at .45."""
    mixture = splits.mixture(np.diag([2.0, 1.0]), cross(alpha, 1.0))
    assert same(mixture.pca_split(), FIRST if first else SECOND)


def test_proposition_f6_the_first_axis_chosen_is_the_maximum_and_the_second_need_not_be():
    every = np.stack([FIRST, SECOND, DIAGONAL])
    for alpha, best in ((0.55, True), (0.45, False), (0.3, True)):
        mixture = splits.mixture(np.diag([2.0, 1.0]), cross(alpha, 1.0))
        assert np.isclose(mixture.gains(mixture.pca_split()[None])[0], mixture.gains(every).max()) == best


@pytest.mark.parametrize(("tasks", "groups"), [(4, 2), (6, 2), (8, 2), (6, 3), (6, 6)])
def test_proposition_f10_the_mean_over_all_balanced_splits_is_a_trace(tasks, groups):
    """`E[G] = η²/(2T(T−1)) tr(M)` for two groups; K groups gain K − 1 times that. M is that of gradients of mean zero."""
    deltas = np.random.default_rng(tasks).normal(size=(tasks, 5))
    mixture = splits.mixture(toy.random_hessian(1, 5), deltas - deltas.mean(axis=0))
    every = splits.balanced_splits(tasks, groups)
    expected = (groups - 1) * splits.ETA**2 / (2 * tasks * (tasks - 1)) * np.trace(mixture.M)
    np.testing.assert_allclose(mixture.gains(every).mean(), expected, rtol=1e-10)


def test_proposition_f10_where_theta0_is_not_the_mixtures_optimum_m_is_centred_first():
    mixture = splits.mixture(toy.random_hessian(1, 5), np.random.default_rng(0).normal(size=(6, 5)) + 1)
    J = np.eye(6) - 1 / 6
    expected = splits.ETA**2 / (2 * 6 * 5) * np.trace(J @ mixture.M @ J)
    np.testing.assert_allclose(mixture.gains(splits.balanced_splits(6)).mean(), expected, rtol=1e-10)
    assert expected < 0.9 * splits.ETA**2 / (2 * 6 * 5) * np.trace(mixture.M)


@pytest.mark.parametrize("seed", range(6))
def test_proposition_f11_the_sign_split_gains_at_least_what_the_top_eigenvalue_promises(seed):
    """`G(sign v_1) ≥ η²/(2T²) μ_1 ‖v_1‖_1²`, and more than random where `μ_1 ‖v_1‖_1² > T/(T−1) tr(M)`."""
    T = 8
    half = np.random.default_rng(seed).normal(size=(T // 2, 5))
    M = splits.mixture(toy.random_hessian(seed, 5), np.concatenate([half, -half])).M
    values, vectors = np.linalg.eigh(M)
    promised = values[-1] * np.abs(vectors[:, -1]).sum() ** 2
    split = spectral_split(M)
    assert same(split, (vectors[:, -1] < 0).astype(np.int32)), "mirrored datasets balance the signs"
    found = gains(M, split[None])[0]
    assert found >= splits.ETA**2 / (2 * T**2) * promised * (1 - 1e-9)
    if promised > T / (T - 1) * np.trace(M):
        assert found > gains(M, splits.balanced_splits(T)).mean()


def test_proposition_f11_promises_more_than_random_for_some_mixtures_here():
    """So that the condition of the test above is met somewhere."""
    met = []
    for seed in range(6):
        half = np.random.default_rng(seed).normal(size=(4, 5))
        values, vectors = np.linalg.eigh(splits.mixture(toy.random_hessian(seed, 5), np.concatenate([half, -half])).M)
        met.append(values[-1] * np.abs(vectors[:, -1]).sum() ** 2 > 8 / 7 * values.sum())
    assert any(met)


def test_one_flat_conflict_gains_t_minus_one_times_the_random_mean():
    """Rank-1 M with a flat v_1: the ratio is T − 1, the largest there is."""
    T = 6
    v = np.array([1, -1, 1, 1, -1, -1]) / np.sqrt(T)
    M = 3.0 * np.outer(v, v)
    ratio = gains(M, spectral_split(M)[None])[0] / gains(M, splits.balanced_splits(T)).mean()
    np.testing.assert_allclose(ratio, T - 1)


def test_without_a_preferred_direction_no_split_beats_random():
    found = gains(np.eye(6) - 1 / 6, splits.balanced_splits(6))
    np.testing.assert_allclose(found, found.mean(), rtol=1e-12)
