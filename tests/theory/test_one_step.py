"""One SGD step of each branch: gains from gradients and curvature alone, and the cube of the eigenvalue they grow with."""

import numpy as np
import pytest

from merit_jax.diagnostics.merging_gain import merging_gain
from merit_jax.merging import MERGERS, token_weights
from tests.support import splits, toy

pytestmark = pytest.mark.usefixtures("x64")

TASKS, DIMENSION = 6, 5
DELTAS = np.random.default_rng(0).normal(size=(TASKS, DIMENSION))
SPLIT = np.array([0, 1, 0, 1, 1, 0])


def trained_gain(mixture: splits.Mixture, split: np.ndarray):
    """The gain really obtained: every branch trained by the project's SGD, merged by its token counts."""
    members = splits.group_members(split)
    thetas = [mixture.toy.trained(np.zeros(DIMENSION), group, splits.ETA) for group in members]
    weights = token_weights([2 * len(group) for group in members])
    return merging_gain(
        mixture.toy.objective(), MERGERS["token_weighted"](mixture.theta0, thetas, weights), thetas, weights
    )


def test_curvature_between_gradients_is_cubic_in_the_hessian():
    """`M_ij = Δ_iᵀ H³ Δ_j`, as g_t = −H Δ_t."""
    H = toy.random_hessian(0, DIMENSION)
    np.testing.assert_allclose(splits.mixture(H, DELTAS).M, DELTAS @ H @ H @ H @ DELTAS.T, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("split", [SPLIT, np.array([0, 1, 2, 2, 1, 0]), np.array([1, 0, 0, 0, 0, 2])])
def test_the_gain_predicted_before_training_is_the_one_obtained_after_one_step(split):
    """Any number of groups of any size."""
    mixture = splits.mixture(toy.random_hessian(0, DIMENSION), DELTAS)
    found = trained_gain(mixture, split)
    np.testing.assert_allclose(mixture.gains(split[None])[0], found.obtained, rtol=1e-9)
    np.testing.assert_allclose(found.predicted, found.obtained, rtol=1e-9)


def test_the_gain_of_two_groups_is_a_quadratic_form_in_the_signs():
    """`η²/8 (ḡ_1 − ḡ_2)ᵀ H (ḡ_1 − ḡ_2) = η²/(2T²) sᵀMs`."""
    H = toy.random_hessian(1, DIMENSION)
    mixture, s = splits.mixture(H, DELTAS), splits.signs(SPLIT)
    G = -DELTAS @ H
    apart = G[SPLIT == 0].mean(axis=0) - G[SPLIT == 1].mean(axis=0)
    obtained = trained_gain(mixture, SPLIT).obtained
    np.testing.assert_allclose(obtained, splits.ETA**2 / 8 * apart @ H @ apart, rtol=1e-9)
    np.testing.assert_allclose(obtained, splits.ETA**2 / (2 * TASKS**2) * s @ mixture.M @ s, rtol=1e-9)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_the_gain_along_an_eigenvector_grows_with_the_cube_of_its_eigenvalue(factor):
    """Datasets that differ along one eigenvector of H, whose eigenvalue alone is scaled."""
    U = np.linalg.qr(np.random.default_rng(3).normal(size=(DIMENSION, DIMENSION)))[0]
    deltas = np.random.default_rng(4).normal(size=(TASKS, 1)) * U[:, 2]
    obtained = []
    for scale in (1.0, factor):
        values = np.array([2.0, 1.0, 0.7 * scale, 0.2, 0.1])
        obtained.append(trained_gain(splits.mixture((U * values) @ U.T, deltas), SPLIT).obtained)
    np.testing.assert_allclose(obtained[1] / obtained[0], factor**3, rtol=1e-9)


def test_after_one_step_all_splits_have_one_merged_model_and_the_gain_is_what_the_branches_lose():
    mixture = splits.mixture(toy.random_hessian(2, DIMENSION), DELTAS)
    found = [trained_gain(mixture, split) for split in splits.balanced_splits(TASKS)[:5]]
    np.testing.assert_allclose([each.merged_loss for each in found], found[0].merged_loss, rtol=1e-12)
    losses = [each.mean_branch_loss - found[0].mean_branch_loss for each in found]
    np.testing.assert_allclose(losses, [each.obtained - found[0].obtained for each in found], atol=1e-12)
