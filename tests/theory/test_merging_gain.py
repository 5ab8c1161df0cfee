"""MERIT Thm 3.1, Eq. 11 and Eq. 2: what averaging does to losses and to distances, on a quadratic mixture in float64."""

import numpy as np
import pytest

from merit_jax.checkpoints.readers import distance
from merit_jax.core import tree
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.merging_gain import merging_gain
from merit_jax.merging import MERGERS, TreeLeaves
from tests.support import toy

pytestmark = pytest.mark.usefixtures("x64")

DIMENSION = 7
WEIGHTS = [(0.5, 0.5), (0.1, 0.2, 0.7), (0.25, 0.25, 0.25, 0.25), (0.4, 0.05, 0.05, 0.3, 0.2)]


def branches(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """theta0 and branches anywhere around it."""
    rng = np.random.default_rng(seed)
    theta0 = rng.normal(size=DIMENSION)
    return theta0, theta0 + rng.normal(size=(count, DIMENSION))


def merged(theta0: np.ndarray, thetas: np.ndarray, weights: tuple[float, ...]) -> dict:
    """The project's weighted mean."""
    return MERGERS["token_weighted"](toy.leaves(theta0), [toy.leaves(theta) for theta in thetas], weights)


def gain(H: np.ndarray, thetas: np.ndarray, mean: dict, weights: tuple[float, ...]):
    mixture = toy.Quadratic(H, np.random.default_rng(9).normal(size=(3, DIMENSION)))
    return merging_gain(mixture.objective(), mean, [toy.leaves(theta) for theta in thetas], weights)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("rank", [DIMENSION, 3])
def test_theorem_3_1_the_gain_is_half_the_variance_along_eigenvectors_times_their_eigenvalues(weights, rank):
    """`Σ w L(θ_k) − L(θ̄) = ½ Σ_ℓ λ_ℓ Var_w(u_ℓᵀ δ_k)`, with flat directions too."""
    H = toy.random_hessian(1, DIMENSION, rank)
    theta0, thetas = branches(len(weights))
    found = gain(H, thetas, merged(theta0, thetas, weights), weights)
    values, vectors = np.linalg.eigh(H)
    along = thetas @ vectors
    variance = np.array(weights) @ (along - np.array(weights) @ along) ** 2
    np.testing.assert_allclose(found.obtained, values @ variance / 2, rtol=1e-10)
    np.testing.assert_allclose(found.predicted, found.obtained, rtol=1e-10)
    assert found.obtained > 0


@pytest.mark.parametrize("weights", WEIGHTS)
def test_theorem_3_1_the_gain_is_a_sum_over_pairs_of_branches(weights):
    """`¼ Σ_ij w_i w_j (δ_i − δ_j)ᵀ H (δ_i − δ_j)`; for uniform weights the factor is 1 / (4K²)."""
    H = toy.random_hessian(2, DIMENSION)
    theta0, thetas = branches(len(weights))
    apart = thetas[:, None] - thetas[None]
    expected = np.einsum("i,j,ijk,kl,ijl->", weights, weights, apart, H, apart) / 4
    np.testing.assert_allclose(gain(H, thetas, merged(theta0, thetas, weights), weights).obtained, expected, rtol=1e-10)


def test_branches_that_differ_along_flat_directions_gain_nothing():
    H = np.diag([3.0, 1, 1, 1, 0, 0, 0])
    theta0, thetas = branches(3)
    thetas[:, :4] = theta0[:4]
    found = gain(H, thetas, merged(theta0, thetas, (0.2, 0.3, 0.5)), (0.2, 0.3, 0.5))
    np.testing.assert_allclose([found.obtained, found.predicted], 0, atol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equation_11_squared_distances_are_that_of_the_mean_and_the_spread_about_it(weights):
    """`Σ w ‖δ_k‖² = ‖δ̄‖² + Σ w ‖δ_k − δ̄‖²`, the parallel-axis identity."""
    theta0, thetas = branches(len(weights))
    mean = TreeLeaves(merged(theta0, thetas, weights))
    readers = [TreeLeaves(toy.leaves(theta)) for theta in thetas]
    start = TreeLeaves(toy.leaves(theta0))
    from_start = [distance(reader, start) ** 2 for reader in readers]
    from_mean = [distance(reader, mean) ** 2 for reader in readers]
    right = distance(mean, start) ** 2 + np.dot(weights, from_mean)
    np.testing.assert_allclose(np.dot(weights, from_start), right, rtol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_equation_2_the_merged_model_is_no_farther_from_theta0_than_its_branches(weights):
    """`‖θ̄ − θ_0‖² ≤ Σ w ‖θ_k − θ_0‖²`, an equality only where the branches agree."""
    theta0, thetas = branches(len(weights))
    for together in (thetas, np.repeat(thetas[:1], len(thetas), axis=0)):
        offsets = [tree.axpy(-1.0, toy.leaves(theta0), toy.leaves(theta)) for theta in together]
        moved = tree.axpy(-1.0, toy.leaves(theta0), merged(theta0, together, weights))
        bound = np.dot(weights, [float(tree.dot(offset, offset)) for offset in offsets])
        if together is thetas:
            assert float(tree.dot(moved, moved)) < bound
        else:
            np.testing.assert_allclose(tree.dot(moved, moved), bound, rtol=1e-12)


def test_the_toy_mixture_has_the_hessian_it_was_given():
    H = toy.random_hessian(3, DIMENSION)
    objective = toy.Quadratic(H, np.random.default_rng(0).normal(size=(4, DIMENSION))).objective()
    theta0, thetas = branches(1)
    found = hessian.product(objective, toy.leaves(theta0), toy.leaves(thetas[0]))
    np.testing.assert_allclose(toy.vector(found), H @ thetas[0], rtol=1e-12)
