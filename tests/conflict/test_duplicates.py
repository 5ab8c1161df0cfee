"""Duplicates are found by their gradients, with C and without it."""

import numpy as np
import pytest

from merit_jax import conflict


def rows(t: int, d: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((t, d))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def turned(row: np.ndarray, cosine: float) -> np.ndarray:
    """A unit row with this cosine to a unit row."""
    other = rows(1, len(row), 99)[0].astype(np.float64)
    across = other - (other @ row) * row
    return cosine * row + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)


@pytest.mark.parametrize("found", [lambda X: conflict.duplicates(X @ X.T), conflict.duplicates_of_rows], ids=["C", "X"])
@pytest.mark.parametrize("d", [3, 200])
def test_a_dataset_points_to_the_first_that_it_repeats(found, d):
    X = rows(12, d)
    X[7], X[9], X[4] = X[2], X[2], turned(X[3], 1 - 3e-7)
    X[5], X[6] = turned(X[3], 1 - 1e-5), -X[3]
    expected = np.arange(12)
    expected[[7, 9, 4]] = 2, 2, 3
    np.testing.assert_array_equal(found(X), expected)


def test_the_same_length_is_not_needed():
    G = rows(4, 30)
    G[3] = 1e6 * G[1]
    np.testing.assert_array_equal(conflict.duplicates(conflict.cosine_similarity(G)), [0, 1, 2, 1])


def test_many_copies_are_found_without_comparing_all_pairs():
    X = np.repeat(rows(2, 64), 3000, axis=0)
    np.testing.assert_array_equal(conflict.duplicates_of_rows(X), np.repeat([0, 3000], 3000))


def test_all_that_repeat_each_other_are_named_together():
    assert conflict.repeated([0, 1, 0, 0], ["a", "b", "c", "d"]) == [("a", "c", "d")]
    assert conflict.repeated([0, 1], ["a", "b"]) == []
