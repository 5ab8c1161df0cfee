"""Fidelity of reduced gradients, against numpy and scipy on gradients known in closed form."""

import numpy as np
import pytest
from scipy import stats

from merit_jax.core import tree
from merit_jax.diagnostics.sketch import sketch
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.stride import Stride
from tests.support import toy

NAMES = ["a", "b", "c", "d"]
BATCHES = [[toy.random_batch(10 * t), toy.random_batch(10 * t + 1)] for t in range(4)]


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def reduced(reduce):
    """Closed-form gradients, put back into their leaves and reduced."""
    rows = []
    for batches in BATCHES:
        g = toy.gradient(batches, "example").astype(np.float32)
        leaves = {"dense/bias": g[: toy.COLUMNS], "dense/kernel": g[toy.COLUMNS :].reshape(toy.ROWS, toy.COLUMNS)}
        rows.append(np.asarray(reduce(leaves)))
    return np.stack(rows)


def test_every_reduction_is_compared_with_the_whole_gradient():
    found = sketch(toy.loss, toy.params(), BATCHES, NAMES, strides=(2, 3), widths=(16,))
    whole = cosines(np.stack([toy.gradient(batches, "example") for batches in BATCHES]))
    np.testing.assert_allclose(found.similarity, whole, atol=1e-5)
    reductions = [Stride(2), Stride(3), CountSketch(16)]
    assert [(row.reduction, row.size) for row in found.rows] == [("stride", 2), ("stride", 3), ("countsketch", 16)]
    above = np.triu_indices(4, k=1)
    for row, reduce in zip(found.rows, reductions, strict=True):
        rows = reduced(reduce)
        x, y = whole[above], cosines(rows.astype(np.float64))[above]
        assert row.entries == rows.shape[1]
        assert row.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-4)
        assert row.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-6)
        assert row.mae == pytest.approx(np.abs(x - y).mean(), abs=1e-5)
        assert row.rmse == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-5)
    assert found.entries == sum(leaf.size for leaf in tree.flatten(toy.params()).values())


def test_a_stride_of_one_loses_nothing():
    (row,) = sketch(toy.loss, toy.params(), BATCHES, NAMES, strides=(1,), widths=()).rows
    assert (row.pearson, row.mae) == (pytest.approx(1), pytest.approx(0, abs=1e-6))


def test_too_little_to_compare_is_refused():
    with pytest.raises(ValueError, match="at least 3 datasets, got 2"):
        sketch(toy.loss, toy.params(), BATCHES[:2], NAMES[:2])
    with pytest.raises(ValueError, match=r"nothing to compare: diagnostics\.strides"):
        sketch(toy.loss, toy.params(), BATCHES, NAMES, strides=(), widths=())
