"""The stride: one entry in every s without structure along an axis, the same on any mesh, with nothing moved."""

import numpy as np
import pytest

from merit_jax.gradients.compressor import leaf_shardings
from merit_jax.gradients.stride import Stride
from tests.support.sharded_leaves import HOST, MESHES, collectives, cut, program


def kept(shape, stride):
    """Where the indices sum to a multiple of the stride."""
    return np.indices(shape).sum(axis=0) % stride == 0


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("stride", [1, 3, 5, 100])
def test_a_stride_keeps_the_same_entries_on_any_mesh_and_moves_none(mesh, stride):
    expected = np.concatenate([np.ravel(HOST[path][kept(HOST[path].shape, stride)]) for path in sorted(HOST)])
    leaves = cut(mesh)
    np.testing.assert_array_equal(Stride(stride)(leaves), expected)
    assert Stride(stride).size(leaf_shardings(leaves)) == len(expected)
    assert not collectives(program(Stride(stride), leaves).as_text())


@pytest.mark.parametrize("shape", [(64, 40), (41, 23), (3, 16, 56), (2, 5, 7)])
def test_every_row_and_column_has_its_share(shape):
    entries = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    chosen = np.isin(entries, Stride(5)({"w": entries}))
    for axis, size in enumerate(shape):
        along = chosen.sum(axis=axis)
        assert along.min() >= size // 5
        assert along.max() <= -(-size // 5)


def test_entries_that_are_not_finite_stay_so():
    leaf = np.array([[np.inf, 1, 2, 3, 4], [5, 6, 7, 8, np.nan]], np.float32)
    np.testing.assert_array_equal(Stride(5)({"w": leaf}), [np.inf, np.nan])
    np.testing.assert_array_equal(Stride(5)({"w": leaf[:, ::-1]}), [4, 5])
