"""Distances between models, leaf by leaf."""

import numpy as np
import pytest

from merit_jax.checkpoints.readers import TreeLeaves, distance


def leaves(scale, **more):
    return TreeLeaves({"a": {"b": scale * np.ones((2, 3), np.float32)}, "c": scale * np.ones(3, np.float16), **more})


def test_distance_is_the_euclidean_norm_over_all_leaves():
    assert distance(leaves(3), leaves(1)) == pytest.approx(2 * 9**0.5)
    assert distance(leaves(2), leaves(2)) == 0


def test_only_the_leaves_of_the_first_count():
    assert distance(leaves(3), leaves(1, d=np.ones(100, np.float32))) == pytest.approx(6)


def test_differences_below_the_precision_of_their_squares_count():
    tiny = np.full(4, 1e-30, np.float32)  # whose squares are 0 in float32
    assert distance(TreeLeaves({"a": tiny}), TreeLeaves({"a": 0 * tiny})) == pytest.approx(2e-30)
