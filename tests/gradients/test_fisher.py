"""The diagonal Fisher information against the closed form of a linear loss: the mean of squared features."""

import jax
import numpy as np
import pytest

from merit_jax.core import tree
from merit_jax.gradients.fisher import diagonal_fisher
from tests.support import toy

BATCHES = [toy.random_batch(0), toy.random_batch(1), toy.random_batch(2, length=7)]


def expected() -> np.ndarray:
    """Mean over examples of the squared mean feature of their targets, [bias, kernel] in one vector."""
    squares = []
    for batch in BATCHES:
        for targets, weights in zip(batch.targets, batch.weights, strict=True):
            if weights.any():
                squares.append((weights @ toy.FEATURES.astype(np.float64)[targets] / weights.sum()) ** 2)
    return np.mean(squares, axis=0)


def flat(leaves) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in tree.flatten(leaves).values()])


def test_fisher_is_the_mean_of_squared_example_gradients():
    np.testing.assert_allclose(flat(diagonal_fisher(toy.loss, toy.params(), BATCHES)), expected(), rtol=1e-5)


def test_how_examples_are_batched_does_not_matter():
    rows = [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for batch in BATCHES for i in range(len(batch.tokens))]
    found = diagonal_fisher(toy.loss, toy.params(), rows)
    np.testing.assert_allclose(flat(found), expected(), rtol=1e-5)


def test_frozen_parameters_have_no_part_in_it():
    assert list(diagonal_fisher(toy.loss, toy.params(), BATCHES, trainable=("kernel",))) == ["dense/kernel"]


def test_no_supervised_token_is_refused():
    empty = BATCHES[0]._replace(weights=np.zeros_like(BATCHES[0].weights))
    with pytest.raises(ValueError, match="no example with supervised tokens"):
        diagonal_fisher(toy.loss, toy.params(), [empty])
