"""Lanczos against eigh of explicit matrices; its basis against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.lanczos import gaussian, lanczos, overlaps, ritz
from merit_jax.diagnostics.offloaded_vectors import SpilledTrees
from tests.support import toy


def operator(A: np.ndarray):
    """Multiplies trees of two leaves by A."""
    return lambda v: toy.leaves(np.asarray(A, v["head"].dtype) @ toy.vector(v))


def start(dimension: int, dtype=np.float32) -> dict:
    return gaussian(toy.leaves(np.zeros(dimension, dtype)), 0)


def test_top_eigenvalues_of_a_network_are_those_of_its_explicit_hessian():
    model, batches = toy.Network(), [toy.Network().batch(0), toy.Network().batch(1)]
    loss_fn = next_token_loss(model)
    leaves, _ = tree.split(model.params(dtype=np.float32), (".*",))
    flat, unravel = ravel_pytree(leaves)

    def loss(flat):
        return sum(loss_fn(tree.unflatten(unravel(flat)), batch)[0].sum() for batch in batches)

    tokens = sum(batch.weights.sum() for batch in batches)
    expected = np.asarray(jnp.linalg.eigh(jax.hessian(loss)(flat) / tokens)[0])[::-1][:5]
    objective = hessian.Objective(loss_fn, {}, batches)
    krylov = lanczos(lambda v: hessian.product(objective, leaves, v), gaussian(leaves, 0), 30)
    np.testing.assert_allclose(ritz(krylov, 5).values, expected, rtol=1e-3)


def test_the_basis_stays_orthonormal_where_plain_lanczos_loses_it():
    """An eigenvalue far from all others is found at once, and without re-orthogonalisation comes back again and again."""
    A = np.diag(np.concatenate([[1e4], np.linspace(1, 2, 59)]))
    krylov = lanczos(operator(A), start(60), 40)
    Q = np.array([toy.vector(q) for q in krylov.basis])
    np.testing.assert_allclose(Q @ Q.T, np.eye(40), atol=1e-5)
    assert (ritz(krylov, 40).values > 3).sum() == 1


@pytest.mark.usefixtures("x64")
def test_the_lanczos_relation_holds():
    A = toy.random_hessian(0, 20)
    krylov = lanczos(operator(A), start(20, np.float64), 8)
    Q = np.array([toy.vector(q) for q in krylov.basis]).T
    inner = krylov.off_diagonal[:-1]
    T = np.diag(krylov.diagonal) + np.diag(inner, 1) + np.diag(inner, -1)
    rest = A @ Q - Q @ T
    np.testing.assert_allclose(rest[:, :-1], 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(rest[:, -1]), krylov.off_diagonal[-1], rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_residuals_are_those_of_the_eigenpairs():
    A = toy.random_hessian(1, 20)
    krylov = lanczos(operator(A), start(20, np.float64), 8)
    pairs = ritz(krylov, 3)
    vectors = np.array([toy.vector(q) for q in krylov.basis]).T @ pairs.weights
    residuals = np.linalg.norm(A @ vectors - vectors * pairs.values, axis=0)
    np.testing.assert_allclose(pairs.residuals, residuals, rtol=1e-6, atol=1e-12)
    assert pairs.residuals.max() > 1e-3
    assert list(pairs.values) == sorted(pairs.values, reverse=True)


def test_it_ends_where_the_operator_leads_no_further():
    krylov = lanczos(operator(np.diag([5.0, 5, 2, 2, 2, 1])), start(6), 6)
    assert len(krylov.diagonal) == 3
    assert krylov.off_diagonal[-1] == 0
    np.testing.assert_allclose(ritz(krylov, 10).values, [5, 2, 1], rtol=1e-5)


def test_largest_eigenvalues_come_first_and_negative_ones_last():
    krylov = lanczos(operator(np.diag([1.0, -50, 3])), start(3), 3)
    np.testing.assert_allclose(ritz(krylov, 3).values, [3, 1, -50], rtol=1e-4)


def test_overlaps_are_inner_products_with_the_basis():
    krylov = lanczos(operator(toy.random_hessian(0, 6)), start(6), 3)
    vectors = [toy.leaves(np.arange(6, dtype=np.float32)), toy.leaves(np.ones(6, np.float32))]
    expected = np.array([toy.vector(q) for q in krylov.basis]) @ np.array([toy.vector(v) for v in vectors]).T
    np.testing.assert_allclose(overlaps(krylov.basis, vectors), expected, rtol=1e-5, atol=1e-6)


def test_vectors_on_disk_come_back_as_they_were_and_where_they_lay(tmp_path):
    mesh = sharding.make_mesh()
    placed = {"a": NamedSharding(mesh, PartitionSpec("fsdp")), "b": NamedSharding(mesh, PartitionSpec())}
    trees = [jax.device_put({"a": np.arange(8.0) + i, "b": np.ones((2, 3)) * i}, placed) for i in range(3)]
    spilled = SpilledTrees(tmp_path)
    for each in trees:
        spilled.append(each)
    for found, expected in zip(spilled, trees, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert {path: leaf.sharding for path, leaf in found.items()} == placed


def test_where_the_basis_is_kept_changes_nothing(tmp_path):
    A = toy.random_hessian(0, 12)
    in_memory, on_disk = (lanczos(operator(A), start(12), 6, basis) for basis in (None, SpilledTrees(tmp_path)))
    np.testing.assert_array_equal(in_memory.diagonal, on_disk.diagonal)
    np.testing.assert_array_equal(in_memory.off_diagonal, on_disk.off_diagonal)


def test_gaussian_leaves_differ_by_leaf_and_seed_and_are_standard_normal():
    leaves = {"a": jnp.zeros((50, 60)), "b": jnp.zeros((50, 60))}
    first, other = gaussian(leaves, 0), gaussian(leaves, 1)
    values = [np.asarray(x) for x in (*first.values(), *other.values())]
    assert np.abs(np.corrcoef([x.ravel() for x in values]) - np.eye(4)).max() < 0.1
    assert abs(np.mean(values)) < 0.05
    assert abs(np.std(values) - 1) < 0.05


@pytest.mark.parametrize(("scale", "iterations"), [(0.0, 3), (1.0, 0), (np.nan, 3)])
def test_no_start_or_no_iteration_is_refused(scale, iterations):
    with pytest.raises(ValueError, match="needs an iteration and a start vector"):
        lanczos(operator(np.eye(3)), toy.leaves(np.full(3, scale, np.float32)), iterations)


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="product 1 of Lanczos is not finite"):
        lanczos(lambda v: jax.tree.map(lambda x: x * np.inf, v), start(3), 2)
