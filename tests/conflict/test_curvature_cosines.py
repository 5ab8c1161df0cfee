"""Cosines in the inner product of a matrix, from whole and compressed rows."""

import jax
import numpy as np
import pytest

from merit_jax import conflict
from merit_jax.conflict import blocked_products
from merit_jax.core import sharding
from merit_jax.gradients.count_sketch import CountSketch
from merit_jax.gradients.stride import Stride
from tests.support import toy

T, D = 8, 600
G = np.random.default_rng(0).normal(size=(T, D)).astype(np.float32) * np.geomspace(1e-3, 1e2, T)[:, None].astype("f4")
H = toy.random_hessian(1, D)
HG = (G @ H).astype(np.float32)


def dense(G=G, H=H):
    M = G.astype(np.float64) @ H @ G.T
    scale = np.sqrt(M.diagonal())
    return M / scale[:, None] / scale


def test_they_are_the_matrix_of_the_merging_gain_divided_by_its_diagonal():
    found = conflict.curvature_cosines(G, HG)
    np.testing.assert_allclose(found.values, dense(), atol=1e-5)
    assert found.error < 1e-5
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, found.values.T)
    np.testing.assert_array_equal(found.values.diagonal(), 1)


def test_without_curvature_they_are_cosines():
    np.testing.assert_allclose(conflict.curvature_cosines(G, 3 * G).values, conflict.cosine_similarity(G), atol=1e-5)


@pytest.mark.parametrize("width", [2**12, 2**15])
def test_a_sketch_keeps_them_and_knows_its_error(width):
    sketch = CountSketch(width)
    found = conflict.curvature_cosines(*([sketch({"w": row}) for row in rows] for rows in (G, HG)))
    off = found.values[np.triu_indices(T, 1)] - dense()[np.triu_indices(T, 1)]
    size = np.sqrt(np.mean(off**2))
    assert 0.4 * found.error < size < 2.5 * found.error
    assert size < 4 / np.sqrt(width)


def test_the_share_of_a_stride_cancels():
    rng, scale = np.random.default_rng(2), np.geomspace(1, 10, 300).astype(np.float32)
    kernels = rng.normal(size=(2, 400, 300)).astype(np.float32)
    kernels[1] += kernels[0]
    rows = [[Stride(5)({"w": kernel}) for kernel in part] for part in (kernels, kernels * scale)]
    assert conflict.curvature_cosines(*rows).values[0, 1] == pytest.approx(np.sqrt(1 / 2), abs=0.02)


@pytest.mark.parametrize("sizes", [(1, 2, 1), (2, 2, 2)])
def test_devices_agree_with_the_host(monkeypatch, sizes):
    monkeypatch.setattr(blocked_products, "BLOCK", 150)
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(*sizes, devices=devices)
    found = conflict.curvature_cosines(G, HG, mesh=mesh)
    np.testing.assert_allclose(found.values, dense(), atol=1e-5)


def test_a_dataset_without_positive_curvature_is_named():
    rows = HG.copy()
    rows[1], rows[3], rows[4, 7] = 0, -rows[3], np.nan
    names = [f"task{t}" for t in range(T)]
    with pytest.raises(ValueError, match=r"dataset 'task1' \(0\), 'task3' \(-.*\), 'task4' \(nan\), so its curvature"):
        conflict.curvature_cosines(G, rows, names)
    with pytest.raises(ValueError, match=r"dataset row 3 \(-"):
        conflict.curvature_cosines(G[:4], [*HG[:3], -HG[3]])
