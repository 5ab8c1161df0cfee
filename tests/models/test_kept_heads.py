"""Masks of heads as smaller attentions."""

import ml_dtypes
import numpy as np
import pytest

from merit_jax.models.kept_heads import of_heads, smaller_heads, without_output

SHAPES = [
    (8, lambda heads: True, (5, 5)),
    (8, lambda heads: 24 % heads == 0, (6, 6)),
    (8, lambda heads: heads > 6, (7, 7)),
    (4, lambda heads: True, (6, 3)),
    (4, lambda heads: heads == 4, (8, 4)),
    (2, lambda heads: heads > 6, (8, 2)),
    (1, lambda heads: heads > 5, (6, 1)),
]


@pytest.mark.parametrize(("groups", "possible", "shape"), SHAPES, ids=[str(number) for number in range(len(SHAPES))])
def test_the_smallest_possible_shape_holds_every_head_once_with_its_keys(groups, possible, shape):
    kept = np.array([[1, 1, 0, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0, 0, 0]], bool)
    found = smaller_heads(kept, groups, possible)
    assert (found.query.shape[1], found.key.shape[1]) == shape
    for layer, mask in enumerate(kept):
        heads, keys = found.query[layer], np.repeat(found.key[layer], shape[0] // shape[1])
        np.testing.assert_array_equal(heads[heads >= 0], np.flatnonzero(mask))
        np.testing.assert_array_equal(keys[heads >= 0], np.flatnonzero(mask) // (8 // groups))


@pytest.mark.parametrize("axis", [1, 2])
def test_leaves_have_the_numbers_of_their_heads_and_zeros_for_fillers(axis):
    leaf = np.arange(2 * 6 * 6).reshape(2, 6, 6).astype(ml_dtypes.bfloat16)
    places = np.array([[2, 0], [1, -1]])
    found = of_heads(leaf, places, axis=axis, head_dim=2)
    columns = [[4, 5, 0, 1], [2, 3]]
    for layer in range(2):
        expected = np.zeros((6, 4), leaf.dtype)
        of_layer = leaf[layer] if axis == 2 else leaf[layer].T
        expected[:, : len(columns[layer])] = of_layer[:, columns[layer]]
        np.testing.assert_array_equal(found[layer] if axis == 2 else found[layer].T, expected)
    assert found.dtype == leaf.dtype


def test_rows_of_removed_heads_are_zero_in_the_layers_that_are_run():
    kernel = np.ones((3, 4, 5), np.float32)
    found = without_output(kernel, np.array([[True, False], [False, True]]))
    np.testing.assert_array_equal(found.sum(axis=2) / 5, [[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]])
    assert kernel.all()
