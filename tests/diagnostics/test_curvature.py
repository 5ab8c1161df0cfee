"""Hessian-PCA alignment against plain numpy, and its null hypothesis against vectors really drawn."""

import numpy as np
import pytest

from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.curvature import (
    HessianAlignment,
    _random_top,
    alignment,
    conflict_directions,
    hessian_alignment,
    quadrant_tasks,
)
from tests.support import toy


def gradients(tasks: int = 4, dimension: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tasks, dimension)) + 0.5


def orthonormal(dimension: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dimension, columns)))[0]


def similarity_of(points: np.ndarray) -> np.ndarray:
    """A similarity whose double-centred axes place the datasets at these points (columns orthogonal, of mean zero)."""
    return (points @ points.T).astype(np.float32)


def test_each_quadrant_gives_the_task_farthest_out():
    far, near = np.array([[3, 2], [3, -2], [-3, 2], [-3, -2]]), np.array([[2, 0.5], [2, -0.5], [-2, 0.5], [-2, -0.5]])
    points = np.concatenate([near, far]).astype(float)
    assert sorted(quadrant_tasks(similarity_of(points))) == [4, 5, 6, 7]
    swapped = np.concatenate([far, near]).astype(float)
    assert sorted(quadrant_tasks(similarity_of(swapped))) == [0, 1, 2, 3]


def test_a_quadrant_without_a_task_has_no_part():
    points = np.array([[1, 1], [1, 1], [-0.5, -5], [-1.5, 3]])
    found = quadrant_tasks(similarity_of(points))
    assert len(found) == 3
    assert {2, 3} < set(found)


@pytest.mark.parametrize("centred", [False, True])
def test_conflict_directions_are_the_principal_directions_of_the_gradients(centred):
    G = gradients()
    directions = G.T @ conflict_directions(G @ G.T, centred=centred)
    expected = np.linalg.svd(G - G.mean(axis=0) if centred else G, full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(expected @ directions), np.eye(3), atol=1e-9)


def test_there_are_never_more_directions_than_differences():
    G = gradients(2)
    assert conflict_directions(G @ G.T, centred=False).shape == (2, 1)


def test_gradients_that_span_too_little_are_refused():
    G = gradients(1).repeat(4, axis=0)
    with pytest.raises(ValueError, match="4 gradients span fewer than 3 directions"):
        conflict_directions(G @ G.T, centred=False)


def test_subspaces_that_contain_each_other_are_at_no_angle():
    rotation = orthonormal(3, 3, 1)
    cosines = np.concatenate([rotation, np.zeros((3, 4))], axis=1)
    found = alignment(cosines, cosines, 1000)
    np.testing.assert_allclose(found.angles, 0, atol=1e-5)
    assert found.largest == np.abs(rotation).max()
    np.testing.assert_allclose(found.mean_top, np.abs(rotation).max(axis=1).mean())


def test_principal_angles_are_those_of_the_two_planes():
    """Two planes in R^4 that meet at 20 and 70 degrees, each in a basis of its own."""
    angles = np.radians([20, 70])
    U = np.eye(4)[:, :2] @ orthonormal(2, 2, 0)
    V = np.concatenate([np.diag(np.cos(angles)), np.diag(np.sin(angles))]) @ orthonormal(2, 2, 1)
    np.testing.assert_allclose(alignment(U.T @ V, U.T @ V, 4).angles, [20, 70])


def test_the_null_hypothesis_is_that_of_gaussian_vectors():
    """2,000 sets of three vectors in R^60, drawn whole, against four coordinate axes."""
    vectors = np.random.default_rng(5).standard_normal((2000, 3, 60))
    drawn = (np.abs(vectors[..., :4]).max(axis=-1) / np.linalg.norm(vectors, axis=-1)).mean(axis=-1)
    found = _random_top(20_000, 3, 4, 60, 0)
    assert abs(found.mean() - drawn.mean()) < 4 * drawn.std() / np.sqrt(2000)
    assert abs(found.std() / drawn.std() - 1) < 0.06


def test_the_z_score_counts_standard_deviations_of_the_null_hypothesis():
    random = _random_top(10_000, 1, 2, 50, 3)
    cosines = np.array([[0.9, 0.1]])
    found = alignment(cosines, np.array([[0.9, 0.1], [0.0, 0.0]]), 50, seed=3).gaussian
    np.testing.assert_allclose(found.z_score, (0.9 - random.mean()) / random.std(ddof=1))
    assert found.z_score > 3
    assert found.draws == 10_000
    assert found.p_value == 1 / 10_001


def test_the_p_value_is_the_share_of_draws_that_reach_what_was_found():
    random = _random_top(99, 1, 2, 50, 3)
    at = float(np.sort(random)[-10])
    found = alignment(np.array([[at, 0.0]]), np.array([[at, 0.0], [0.0, 0.0]]), 50, draws=99, seed=3)
    assert found.gaussian.p_value == pytest.approx(11 / 100)


def aligned(G: np.ndarray, eigenvectors: int, *, draws: int = 4000) -> HessianAlignment:
    """The protocol on gradients against the first coordinate axes, which are the sharpest directions."""
    dimension = G.shape[1]
    H = np.diag(np.geomspace(1000, 10, eigenvectors).tolist() + [0.0] * (dimension - eigenvectors))
    return hessian_alignment(
        lambda v: toy.leaves((H @ toy.vector(v)).astype(np.float32)),
        [toy.leaves(g.astype(np.float32)) for g in G],
        iterations=eigenvectors + 1,
        eigenvectors=eigenvectors,
        draws=draws,
    )


def test_directions_in_a_span_are_those_of_gradients_really_mixed():
    """Random orthonormal directions in the span of four gradients, as vectors, against two axes."""
    G = gradients()
    basis = np.linalg.qr(G.T)[0]
    triples = [basis @ orthonormal(4, 3, seed) for seed in range(1500)]
    drawn = np.array([np.abs(triple[:2]).max(axis=0).mean() for triple in triples])
    found = aligned(G, 2)
    for part in (found.raw, found.centred):
        assert abs(part.span.mean - drawn.mean()) < 5 * drawn.std() / np.sqrt(1500)
        assert abs(part.span.std / drawn.std() - 1) < 0.1
        np.testing.assert_allclose(part.span.z_score, (part.mean_top - drawn.mean()) / drawn.std(), atol=0.3)


def test_conflict_no_sharper_than_the_span_beats_gaussian_directions_and_not_those_of_the_span():
    """Gradients in a random part of the sharp directions: all of their span is sharp, their differences no more than the rest."""
    scores = {"raw": [], "centred": []}
    for seed in range(30):
        sharp = np.random.default_rng(seed).normal(size=(4, 6))
        found = aligned(np.concatenate([sharp, np.zeros((4, 60))], axis=1), 6, draws=500)
        for name in scores:
            part = getattr(found, name)
            assert part.gaussian.z_score > 8
            scores[name].append(part.span.z_score)
    for values in scores.values():
        assert abs(np.mean(values)) < 0.6
        assert 0.4 < np.std(values) < 1.6


def test_conflict_sharper_than_the_span_is_found_so():
    """What the gradients share is flat, and they differ along three sharp directions."""
    differences = np.array([[3, 0, 0], [0, 2, 0], [0, 0, 1], [-3, -2, -1]], float)
    G = np.concatenate([differences, np.full((4, 1), 2.0), np.zeros((4, 60))], axis=1)
    found = aligned(G, 3).centred
    assert found.mean_top > 0.85
    assert found.span.mean < 0.8
    assert found.span.z_score > 2
    assert found.span.p_value < 0.01
    assert found.gaussian.z_score > 5 * found.span.z_score


def test_the_protocol_gives_what_dense_linear_algebra_gives():
    H, G = toy.random_hessian(0, 12), gradients()
    objective = toy.Quadratic(H, np.zeros((1, 12))).objective()
    at = toy.leaves(np.zeros(12, np.float32))
    found = hessian_alignment(
        lambda v: hessian.product(objective, at, v),
        [toy.leaves(g.astype(np.float32)) for g in G],
        iterations=12,
        eigenvectors=2,
        draws=1000,
    )
    values, vectors = np.linalg.eigh(H)
    np.testing.assert_allclose(found.eigenvalues, values[::-1][:2], rtol=1e-4)
    assert found.dimension == 12
    for part, centre in ((found.raw, 0), (found.centred, G.mean(axis=0))):
        directions = np.linalg.svd(G - centre, full_matrices=False)[2][:3]
        cosines = directions @ vectors[:, ::-1][:, :2]
        np.testing.assert_allclose(part.cosines, np.abs(cosines), atol=1e-3)
        expected = np.degrees(np.arccos(np.linalg.svd(cosines, compute_uv=False)))
        np.testing.assert_allclose(part.angles, expected, atol=0.1)


def test_one_task_has_no_conflict():
    with pytest.raises(ValueError, match="got the gradients of 1"):
        hessian_alignment(lambda v: v, [toy.leaves(np.ones(3, np.float32))])
