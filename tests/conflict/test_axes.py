"""Axes from products with the rows are those of the dense matrix, and so is the split."""

import numpy as np
import pytest

from merit_jax import conflict
from merit_jax.conflict import axes
from merit_jax.partition import PARTITIONERS


def clustered(t, d, seed=0):
    """Unit rows around a few directions, all with something in common."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((6, d)) * np.array([4, 3, 2, 1, 1, 1])[:, None]
    rows = centres[rng.integers(6, size=t)] + rng.standard_normal((t, d)) + 1
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("centring", conflict.CENTRINGS)
@pytest.mark.parametrize(("t", "d"), [(60, 20), (30, 80)])
def test_axes_of_rows_are_those_of_their_similarity(t, d, centring):
    X = clustered(t, d)
    dense, free = conflict.principal_axes(X @ X.T, 3, centring), conflict.axes_of_rows(X, 3, centring)
    np.testing.assert_allclose(free.scores, dense.scores, atol=1e-4 * np.abs(dense.scores).max())
    np.testing.assert_allclose(free.components, dense.components, atol=1e-4)
    np.testing.assert_allclose(free.explained, dense.explained, rtol=1e-4)
    samples = np.arange(1, t + 1)
    for method in ("median_split", "kmeans"):
        groups = [PARTITIONERS[method](np.asarray(found.scores[:, :2]), samples) for found in (dense, free)]
        np.testing.assert_array_equal(*groups)


@pytest.mark.parametrize("centring", conflict.CENTRINGS)
def test_many_datasets_have_the_same_axes_as_few(monkeypatch, centring):
    C = clustered(40, 20) @ clustered(40, 20).T
    dense = conflict.principal_axes(C, 3, centring)
    monkeypatch.setattr(axes, "FEW", 39)
    iterated = conflict.principal_axes(C, 3, centring)
    np.testing.assert_allclose(iterated.scores, dense.scores, atol=1e-4 * np.abs(dense.scores).max())
    np.testing.assert_allclose(iterated.explained, dense.explained, rtol=1e-4)


@pytest.mark.parametrize("centring", conflict.CENTRINGS)
@pytest.mark.parametrize(("rows", "exist"), [([0, 1, 2] * 4, 2), ([0, 1] * 6, 1), ([0] * 12, 0), ([0], 0), ([0, 1], 1)])
def test_axes_that_do_not_exist_are_zero_here_too(rows, exist, centring):
    X = clustered(3, 40, seed=1)[rows]
    found = conflict.axes_of_rows(X, 3, centring)
    assert np.any(found.scores, axis=0).tolist() == [True] * exist + [False] * (3 - exist)
    np.testing.assert_allclose(found.explained.sum(), min(exist, 1), atol=1e-5)
    np.testing.assert_allclose(found.scores, conflict.principal_axes(X @ X.T, 3, centring).scores, atol=1e-4)
    with pytest.raises(ValueError, match="0 principal axes requested; ask for 1 or more"):
        conflict.axes_of_rows(X, 0, centring)


def test_the_matrix_is_formed_where_it_is_small_or_no_larger_than_the_gradients():
    assert conflict.forms_similarity(136, 64, 2**28)
    assert conflict.forms_similarity(20_000, 2**18, 2**28)
    assert not conflict.forms_similarity(100_000, 1024, 2**28)
