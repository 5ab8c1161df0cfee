"""Curvature between gradients and the predicted gain of partitions, against matrices written out."""

import numpy as np
import pytest

from merit_jax.diagnostics.predicted_gain import gradient_curvature, partition_gain, split_gain
from merit_jax.gradients.stride import Stride
from tests.support import toy


def curvature(tasks: int = 6, dimension: int = 9, seed: int = 0) -> np.ndarray:
    G = np.random.default_rng(seed).normal(size=(tasks, dimension))
    return G @ toy.random_hessian(seed, dimension) @ G.T


def test_curvature_between_gradients_is_that_of_the_matrices_written_out():
    G, H = np.random.default_rng(0).normal(size=(4, 9)), toy.random_hessian(0, 9)
    trees = [toy.leaves(g.astype(np.float32)) for g in G]
    keep = Stride(1)
    rows = [np.asarray(keep(each)) for each in trees]
    M = gradient_curvature(lambda v: toy.leaves((H @ toy.vector(v)).astype(np.float32)), iter(trees), rows, keep)
    np.testing.assert_allclose(M, G @ H @ G.T, rtol=1e-4, atol=1e-4)


def test_a_stride_estimates_it_from_a_part_of_the_entries():
    """Equal entries: a third of them, times three, is all of them."""
    trees = [toy.leaves(np.full(10, value, np.float32)) for value in (1, 2)]
    thin = lambda leaves: np.asarray(leaves["tail"])[::3]  # noqa: E731
    M = gradient_curvature(lambda v: v, trees, [thin(each) for each in trees], thin, scale=3.0)
    np.testing.assert_allclose(M, [[9, 18], [18, 36]])


def test_a_missing_gradient_is_refused():
    keep = Stride(1)
    with pytest.raises(ValueError, match="got 1 whole gradients and 2 reduced ones"):
        gradient_curvature(lambda v: v, [toy.leaves(np.ones(3))], [np.ones(3), np.ones(3)], keep)


@pytest.mark.parametrize(
    ("weights", "counts", "expected"),
    [
        (None, None, np.array([14, 8, 6]) / 28),
        ((0.2, 0.5, 0.3), None, np.array([0.2, 0.5, 0.3])),
        (None, [10, 20, 30, 40, 50, 60], np.array([120, 20, 70]) / 210),
    ],
)
def test_the_gain_of_three_groups_is_that_of_their_mean_gradients(weights, counts, expected):
    rng = np.random.default_rng(1)
    G, H = rng.normal(size=(6, 9)), toy.random_hessian(0, 9)
    groups, sizes = np.array([0, 1, 2, 2, 0, 0]), np.array([3, 8, 5, 1, 9, 2])
    means = np.array([np.average(G[groups == k], axis=0, weights=sizes[groups == k]) for k in range(3)])
    w = expected
    centre = w @ means
    found = split_gain(G @ H @ G.T, groups[None], sizes, counts=counts, weights=weights, learning_rate=0.3)
    half = 0.3**2 / 2
    np.testing.assert_allclose(found.branches, half * sum(p * m @ H @ m for p, m in zip(w, means, strict=True)))
    np.testing.assert_allclose(found.merged, half * centre @ H @ centre)
    spread = sum(p * (m - centre) @ H @ (m - centre) for p, m in zip(w, means, strict=True))
    np.testing.assert_allclose(found.gain, half * spread)


def test_merged_by_data_no_split_changes_the_merged_model():
    """Whatever a split gains, its branches have lost."""
    sizes = [3, 8, 5, 1, 9, 2]
    splits = np.random.default_rng(0).permuted(np.tile([0, 0, 1, 1, 2, 2], (20, 1)), axis=1)
    found = split_gain(curvature(), splits, sizes)
    np.testing.assert_allclose(found.merged, found.merged[0])
    np.testing.assert_allclose(found.gain, found.branches - found.merged[0])


def test_one_group_gains_nothing_and_single_datasets_the_most():
    M, sizes = curvature(), [1] * 6
    np.testing.assert_allclose(split_gain(M, np.zeros((1, 6), np.int32), sizes).gain, 0, atol=1e-12)
    alone = split_gain(M, np.arange(6)[None], sizes).gain[0]
    pairs = np.random.default_rng(0).permuted(np.tile([0, 0, 1, 1, 2, 2], (20, 1)), axis=1)
    assert split_gain(M, pairs, sizes).gain.max() < alone


def test_empty_groups_and_missing_weights_are_refused():
    with pytest.raises(ValueError, match="split 1 has an empty group among its 3"):
        split_gain(curvature(), np.array([[0, 1, 2, 0, 1, 2], [0, 0, 2, 2, 2, 2]]), [1] * 6)
    with pytest.raises(ValueError, match="got 2 weights for 3 groups"):
        split_gain(curvature(), np.array([[0, 1, 2, 0, 1, 2]]), [1] * 6, weights=(0.5, 0.5))


def test_the_chosen_split_is_placed_among_balanced_random_ones():
    M = curvature()
    balanced = [np.array([0] + [int(bit) for bit in f"{mask:05b}"]) for mask in range(32) if mask.bit_count() == 3]
    gains = split_gain(M, np.stack(balanced), [1] * 6).gain
    best = balanced[int(np.argmax(gains))]
    found = partition_gain(M, best.astype(np.int32), [1] * 6, [1] * 6, draws=200)
    np.testing.assert_allclose(found.chosen.gain, gains.max())
    np.testing.assert_allclose(found.best.gain, gains.max())
    assert {*np.flatnonzero(found.best_groups)} in ({*np.flatnonzero(best)}, {*np.flatnonzero(best == 0)})
    assert set(np.round(found.random.gain, 9)) == set(np.round(gains, 9))
    worst = balanced[int(np.argmin(gains))]
    assert partition_gain(M, worst.astype(np.int32), [1] * 6, [1] * 6, draws=200).rank == 0
    np.testing.assert_allclose(found.rank, np.mean(found.random.gain < gains.max() - 1e-9))
