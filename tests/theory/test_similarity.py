"""MERIT Lemma 1 and Thm F.4: when cosines tell what inner products tell."""

import numpy as np
import pytest

from merit_jax import conflict

TASKS, RANK = 10, 2


def gradients(spread: float, seed: int = 0) -> np.ndarray:
    """Unit directions with two strong common axes, and norms whose coefficient of variation is about `spread`."""
    rng = np.random.default_rng(seed)
    G = rng.normal(size=(TASKS, 2)) @ rng.normal(size=(2, 40)) + 0.3 * rng.normal(size=(TASKS, 40))
    norms = np.exp(spread * rng.normal(size=(TASKS, 1)))
    return (norms * G / np.linalg.norm(G, axis=1, keepdims=True)).astype(np.float32)


def leading(K: np.ndarray) -> np.ndarray:
    return np.linalg.eigh(np.asarray(K, np.float64))[1][:, -RANK:]


def angle(one: np.ndarray, other: np.ndarray) -> float:
    """Sine of the largest principal angle between two subspaces."""
    return float(np.linalg.norm(one - other @ (other.T @ one), 2))


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_lemma_1_cosines_are_inner_products_scaled_by_the_norms(spread):
    """`C = D⁻¹ K D⁻¹`, `K = G Gᵀ`, and back by `gram`."""
    G = gradients(spread)
    norms = np.linalg.norm(G.astype(np.float64), axis=1)
    K = G.astype(np.float64) @ G.T.astype(np.float64)
    C = conflict.cosine_similarity(G)
    np.testing.assert_allclose(C, K / np.outer(norms, norms), atol=1e-6)
    np.testing.assert_allclose(conflict.gram(C, norms), K / np.mean(norms**2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_f4_leading_eigenspaces_agree_as_norms_concentrate(seed):
    """The angle is at most `‖K − C‖ / gap` (Davis and Kahan), K in units of the mean squared norm, and falls with the spread."""
    angles = []
    for spread in (0.2, 0.02, 0.002):
        G = gradients(spread, seed)
        C = np.asarray(conflict.cosine_similarity(G), np.float64)
        K = np.asarray(conflict.gram(C, np.linalg.norm(G, axis=1)), np.float64)
        inside, outside = np.linalg.eigvalsh(C)[-RANK], np.linalg.eigvalsh(K)[-RANK - 1]
        angles.append(angle(leading(C), leading(K)))
        assert angles[-1] <= np.linalg.norm(K - C, 2) / (inside - outside)
    assert angles[1] < angles[0] / 5
    assert angles[2] < angles[1] / 5


def test_norms_that_do_not_concentrate_can_lead_elsewhere():
    """One long gradient is an axis of K of its own, and none of C."""
    G = gradients(0.0)
    G[0] *= 30
    C = conflict.cosine_similarity(G)
    assert angle(leading(C), leading(conflict.gram(C, np.linalg.norm(G, axis=1)))) > 0.3
