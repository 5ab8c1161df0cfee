"""Other similarities and centrings than the paper's, against principal components of the gradients themselves."""

import numpy as np
import pytest

from merit_jax import conflict


def gradients(t=9, d=300, seed=0):
    """Rows of very different norms."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((t, d)) * 10.0 ** rng.uniform(-1, 1, (t, 1))).astype(np.float32)


def components(rows, rank):
    """Principal component scores of the rows, and the share of the variance of each."""
    centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=0)
    U, S, _ = np.linalg.svd(centred, full_matrices=False)
    return (U * S)[:, :rank], (S**2 / (S**2).sum())[:rank]


def same_axes(found, expected, rtol=1e-3):
    """Equal columns, up to sign."""
    found, expected = np.asarray(found), np.asarray(expected)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=rtol * np.abs(expected).max())


def inner(G):
    return conflict.gram(conflict.cosine_similarity(G), np.linalg.norm(G, axis=1))


def test_the_gram_matrix_is_that_of_the_gradients_over_their_mean_squared_norm():
    G = gradients().astype(np.float64)
    expected = G @ G.T / np.mean((G**2).sum(axis=1))
    np.testing.assert_allclose(inner(gradients()), expected, rtol=1e-5, atol=1e-6)


def test_the_split_by_the_gram_matrix_is_that_of_its_column_centred_form():
    G = gradients()
    K = np.asarray(inner(G), np.float64)
    U, S, _ = np.linalg.svd(K - K.mean(axis=0))
    same_axes(conflict.principal_axes(inner(G), 2).scores, (U * S)[:, :2])


def test_double_centred_axes_of_cosines_are_principal_components_of_unit_gradients():
    G = gradients()
    expected, explained = components(G / np.linalg.norm(G, axis=1, keepdims=True), 3)
    axes = conflict.principal_axes(conflict.cosine_similarity(G), 3, "double")
    same_axes(axes.scores, expected)
    np.testing.assert_allclose(axes.explained, explained, rtol=1e-3)


def test_double_centred_axes_of_inner_products_are_principal_components_of_raw_gradients():
    G = gradients()
    expected, explained = components(G / np.sqrt(np.mean((G.astype(np.float64) ** 2).sum(axis=1))), 2)
    axes = conflict.principal_axes(inner(G), 2, "double")
    same_axes(axes.scores, expected)
    np.testing.assert_allclose(axes.explained, explained, rtol=1e-3)


def test_one_huge_gradient_rules_the_raw_axes_and_not_the_cosine_ones():
    G = gradients()
    G[4] *= 1000
    raw = np.abs(np.asarray(conflict.principal_axes(inner(G), 1, "double").scores[:, 0]))
    cosine = np.abs(np.asarray(conflict.principal_axes(conflict.cosine_similarity(G), 1).scores[:, 0]))
    assert raw[4] > 5 * np.delete(raw, 4).max()
    assert cosine[4] < 5 * np.delete(cosine, 4).max()


def test_duplicate_gradients_span_only_their_distinct_axes_here_too():
    C = conflict.cosine_similarity(np.repeat(gradients(3), 4, axis=0))
    assert np.any(conflict.principal_axes(C, 3, "double").scores, axis=0).tolist() == [True, True, False]


def test_an_unknown_centring_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown centring 'rows'; known: columns, double"):
        conflict.principal_axes(np.eye(4, dtype=np.float32), 1, "rows")
