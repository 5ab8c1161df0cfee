"""Datasets in the plane: their density and their embedding."""

import numpy as np
import pytest
from scipy import stats

from merit_jax.reporting.tsne import density, embed


def test_density_is_the_sum_of_gaussians_and_integrates_to_one():
    points = np.random.default_rng(0).normal(size=(12, 2)) * [1, 3]
    x, y = np.linspace(-8, 8, 81), np.linspace(-24, 24, 81)
    found = density(points, x, y)
    width = points.std(axis=0) * 12 ** (-1 / 6)
    expected = stats.norm.pdf([x[30], y[50]], points, width).prod(axis=1).mean()
    assert found[50, 30] == pytest.approx(expected)
    assert found.sum() * (x[1] - x[0]) * (y[1] - y[0]) == pytest.approx(1, rel=1e-3)


def test_the_embedding_keeps_clusters_apart_and_is_the_same_every_time():
    rng = np.random.default_rng(1)
    centres = np.repeat(np.eye(8)[:2], 6, axis=0)
    units = centres + 0.1 * rng.normal(size=(12, 8))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    start = rng.normal(size=(12, 2))
    places = embed(units @ units.T, start)
    assert np.array_equal(places, embed(units @ units.T, start))
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    same = np.equal.outer(np.arange(12) // 6, np.arange(12) // 6)
    assert apart[same].max() < apart[~same].min()
