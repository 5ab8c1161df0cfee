"""Cosines without noise are those of the gradients that noisy estimates were made of."""

import numpy as np
import pytest

from merit_jax.advice.sharing import GradientGram, branch_agreement, measure_sharing

COUNT, SIZE = 12, 20_000


@pytest.fixture(scope="module")
def gradients():
    """True gradients of different lengths that share a direction, and estimates with noise."""
    rng = np.random.default_rng(0)
    true = 0.6 * rng.standard_normal(SIZE) + rng.standard_normal((COUNT, SIZE))
    true *= np.linspace(0.5, 2, COUNT)[:, None]
    noise = np.linspace(0.3, 1.2, COUNT)[:, None] * np.linalg.norm(true, axis=1, keepdims=True) / np.sqrt(SIZE)
    return true, true + noise * rng.standard_normal(true.shape)


def gram_of(rows, reliability):
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / norms[:, None]
    return GradientGram(lambda V: unit @ (unit.T @ V), norms, reliability)


def reliability(true, estimated):
    return (np.linalg.norm(true, axis=1) / np.linalg.norm(estimated, axis=1)) ** 2


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_cosines_without_noise_are_those_of_the_true_gradients(gradients):
    true, estimated = gradients
    weights = np.linspace(1, 3, COUNT)
    exact = measure_sharing(gram_of(true, np.ones(COUNT)), weights)
    found = measure_sharing(gram_of(estimated, reliability(true, estimated)), weights)
    assert exact.shared == pytest.approx(exact.estimated)
    assert found.estimated < 0.75 * exact.shared
    assert found.shared == pytest.approx(exact.shared, abs=0.02)
    np.testing.assert_allclose(found.with_others, exact.with_others, atol=0.05)
    np.testing.assert_allclose(found.with_mixture, exact.with_mixture, atol=0.05)


def test_the_mean_cosine_is_that_of_the_pairs_and_its_error_the_jackknifes(gradients):
    rows = gradients[0][:5]
    unit = rows / np.linalg.norm(rows, axis=1)[:, None]
    C = unit @ unit.T

    def mean(C):
        return C[~np.eye(len(C), dtype=bool)].mean()

    without = [mean(np.delete(np.delete(C, i, 0), i, 1)) for i in range(5)]
    found = measure_sharing(gram_of(rows, np.ones(5)), np.ones(5))
    assert found.shared == pytest.approx(mean(C))
    assert found.error == pytest.approx(np.sqrt(4 / 5 * np.sum((without - np.mean(without)) ** 2)))
    np.testing.assert_allclose(found.with_mixture, [cosine(row, rows.mean(0)) for row in rows])


def test_branches_agree_as_the_gradients_of_their_data(gradients):
    true, estimated = gradients
    tokens = np.random.default_rng(1).uniform(size=(2, COUNT)) * (np.arange(COUNT) % 2 == np.arange(2)[:, None])
    mixed = (tokens / tokens.sum(1, keepdims=True)) @ true
    gram = gram_of(estimated, reliability(true, estimated))
    assert branch_agreement(gram, tokens) == pytest.approx(cosine(*mixed), abs=0.03)
    assert branch_agreement(gram, np.tile(tokens.sum(0), (4, 1))) == pytest.approx(1)
    cored = 0.75 * tokens + 0.125 * tokens.sum(0)
    assert branch_agreement(gram, tokens) < branch_agreement(gram, cored) < 1


def test_a_gradient_that_is_all_noise_has_no_cosine(gradients):
    gram = gram_of(gradients[0], np.array([0.0, *np.ones(COUNT - 1)]))
    found = measure_sharing(gram, np.ones(COUNT))
    assert np.isnan([found.with_others[0], found.with_mixture[0]]).all()
    assert np.isfinite([found.shared, found.error]).all()
    assert np.isnan(measure_sharing(gram_of(gradients[0], np.zeros(COUNT)), np.ones(COUNT)).shared)


def test_one_dataset_is_refused():
    with pytest.raises(ValueError, match="one dataset"):
        measure_sharing(GradientGram(lambda V: V, np.ones(1), np.ones(1)), np.ones(1))
