"""Cosine similarity and principal axes against independent numpy, and the laws they obey."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from merit_jax import conflict
from merit_jax.conflict import blocked_products


def gradients(t: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((t, d)).astype(np.float32)


def cosines(G: np.ndarray) -> np.ndarray:
    G = G.astype(np.float64)
    unit = G / np.linalg.norm(G, axis=1, keepdims=True)
    return unit @ unit.T


def test_cosine_similarity_is_that_of_numpy_in_float64():
    G = gradients(9, 1000)
    C = conflict.cosine_similarity(G)
    assert C.dtype == jnp.float32
    np.testing.assert_allclose(C, cosines(G), atol=1e-6)


def test_cosine_similarity_is_symmetric_with_unit_diagonal_and_bounded():
    G = np.concatenate([gradients(5, 333)] * 2)
    C = np.asarray(conflict.cosine_similarity(G))
    assert (np.diag(C) == 1).all()
    assert (C == C.T).all()
    assert np.abs(C).max() <= 1


def test_column_blocks_give_the_whole_matrix(monkeypatch):
    monkeypatch.setattr(blocked_products, "BLOCK", 64)
    G = gradients(6, 103)
    np.testing.assert_allclose(conflict.cosine_similarity(G), cosines(G), atol=1e-6)


def test_memory_mapped_and_device_gradients_agree(tmp_path):
    G = gradients(4, 50)
    np.save(tmp_path / "g.npy", G)
    mapped = conflict.cosine_similarity(np.load(tmp_path / "g.npy", mmap_mode="r"))
    np.testing.assert_allclose(mapped, conflict.cosine_similarity(jnp.asarray(G)), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, 5, elements=st.floats(-30, 30)))
def test_cosine_similarity_ignores_the_scale_of_each_gradient(exponents):
    G = gradients(5, 64)
    scaled = (G * 10.0 ** exponents[:, None]).astype(np.float32)
    np.testing.assert_allclose(conflict.cosine_similarity(scaled), cosines(G), atol=2e-6)


def test_a_gradient_without_direction_is_named():
    G = gradients(4, 8)
    G[1] = 0
    G[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 1 \(b\) is zero, row 3 \(d\) is not finite"):
        conflict.cosine_similarity(G, names=["a", "b", "c", "d"])
    G[3, 2] = -np.inf
    with pytest.raises(ValueError, match="row 3 is not finite"):
        conflict.cosine_similarity(G)


def test_extended_similarity_is_that_of_the_whole_collection():
    G = gradients(8, 200)
    whole = conflict.cosine_similarity(G)
    extended = conflict.extend_similarity(whole[:5, :5], G[:5], G[5:])
    np.testing.assert_allclose(extended, whole, atol=1e-6)
    assert (np.asarray(extended) == np.asarray(extended).T).all()


def test_extension_copies_the_old_block_and_numbers_new_rows_from_the_old_count():
    G = gradients(5, 16)
    old = np.full((3, 3), 7, np.float32)
    np.testing.assert_array_equal(conflict.extend_similarity(old, G[:3], G[3:])[:3, :3], old)
    G[4] = 0
    with pytest.raises(ValueError, match=r"row 4 \(e\) is zero"):
        conflict.extend_similarity(old, G[:3], G[3:], names=list("abcde"))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_principal_axes_are_the_covariance_eigenvectors(rank):
    C = cosines(gradients(10, 20)).astype(np.float32)
    axes = conflict.principal_axes(C, rank)
    centred = C.astype(np.float64) - C.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    np.testing.assert_allclose(axes.explained, values / np.trace(centred.T @ centred), rtol=1e-4)
    np.testing.assert_allclose(np.abs(axes.components.T @ vectors), np.eye(rank), atol=1e-4)
    np.testing.assert_allclose(axes.scores, centred @ np.asarray(axes.components), atol=1e-5)


def test_scores_are_centred_and_uncorrelated():
    Z = np.asarray(conflict.principal_axes(conflict.cosine_similarity(gradients(12, 30)), 3).scores)
    np.testing.assert_allclose(Z.sum(axis=0), 0, atol=1e-5)
    gram = Z.T @ Z
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9))
def test_the_score_of_largest_magnitude_is_positive(seed, t):
    Z = np.asarray(conflict.principal_axes(cosines(gradients(t, 12, seed)).astype(np.float32), 2).scores)
    largest = np.abs(Z).max(axis=0)
    first = (np.abs(Z) >= (1 - 1e-3) * largest).argmax(axis=0)
    if (np.sum(np.abs(Z) >= (1 - 1e-3) * largest, axis=0) == 1).all():
        assert (Z[first, [0, 1]] > 0).all()


@pytest.mark.parametrize("noise", range(8))
def test_the_first_of_equal_scores_decides_the_sign_under_rounding(noise):
    C = np.array([[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]], np.float32)
    C += 1e-6 * np.random.default_rng(noise).standard_normal(C.shape).astype(np.float32)
    scores = np.asarray(conflict.principal_axes(C, 1).scores[:, 0])
    np.testing.assert_allclose(scores, [2, 2, -2, -2], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)))
def test_permuting_the_datasets_permutes_the_scores(order):
    C = cosines(gradients(7, 10, 3)).astype(np.float32)
    axes, permuted = (conflict.principal_axes(c, 2) for c in (C, C[np.ix_(order, order)]))
    np.testing.assert_allclose(permuted.scores, np.asarray(axes.scores)[list(order)], atol=1e-4)


CASES = {
    "one dataset": ([[1, 0]], 0),
    "two datasets": ([[1, 0], [0, 1]], 1),
    "all alike": ([[1, 2]] * 5, 0),
    "two alike": ([[1, 2], [1, 2], [0, 1]], 1),
    "opposed": ([[1, 2], [-1, -2], [3, 6], [-2, -4]], 1),
    "in a plane": ([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, -1, 0], [1, 3, 0]], 2),
}


@pytest.mark.parametrize("case", CASES)
def test_axes_that_do_not_exist_have_scores_and_shares_of_zero(case):
    """Also with the rounding that sums of many coordinates bring along."""
    rows, exist = CASES[case]
    spread = np.linalg.qr(gradients(300, len(rows[0]), 7).astype(np.float64))[0]
    G = (np.array(rows, np.float64) @ spread.T).astype(np.float32)
    axes = conflict.principal_axes(conflict.cosine_similarity(G), 3)
    assert axes.scores.shape == axes.components.shape == (len(rows), 3)
    for part in axes:
        assert np.isfinite(part).all()
        assert np.any(np.reshape(part, (-1, 3)), axis=0).tolist() == [True] * exist + [False] * (3 - exist)
    np.testing.assert_allclose(axes.explained.sum(), min(exist, 1), atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("t", [2, 3, 6, 12])
def test_copies_of_any_length_make_no_axis_by_the_rounding_of_their_cosines(t, seed):
    """Gradients whose entries are of very different sizes: cosines of scaled copies are off by 5e-7."""
    rng = np.random.default_rng(seed)
    one, other = rng.standard_normal((2, 100)) * np.exp(3 * rng.standard_normal((2, 100)))
    scales = np.exp(rng.standard_normal((2 * t, 1)))
    copies = (scales[:t] * one).astype(np.float32)
    assert not np.any(conflict.principal_axes(conflict.cosine_similarity(copies), 3).scores)
    two = np.concatenate([copies, (scales[t:] * other).astype(np.float32)])
    axes = conflict.principal_axes(conflict.cosine_similarity(two), 3)
    assert np.any(axes.scores, axis=0).tolist() == [True, False, False]


@pytest.mark.parametrize("rank", [0, -1])
def test_no_axes_are_refused(rank):
    with pytest.raises(ValueError, match=f"^{rank} principal axes requested; ask for 1 or more"):
        conflict.principal_axes(np.eye(4, dtype=np.float32), rank)


def test_duplicates_change_neither_the_number_of_axes_nor_the_order_along_them():
    G = gradients(3, 40)
    axes = conflict.principal_axes(conflict.cosine_similarity(np.repeat(G, 4, axis=0)), 3)
    assert np.any(axes.scores, axis=0).tolist() == [True, True, False]
    np.testing.assert_allclose(axes.scores, np.repeat(axes.scores[::4], 4, axis=0), atol=1e-6)
