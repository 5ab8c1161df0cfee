"""The loss of diagnostics is a mean over supervised tokens, whatever the batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.diagnostics.mean_loss import mean_loss
from tests.support import hills, toy


def test_it_is_the_mean_over_supervised_tokens_of_all_batches():
    given = [toy.random_batch(seed) for seed in range(3)]
    nll, tokens = np.sum([[part.sum() for part in toy.loss(toy.params(), b)] for b in given], axis=0)
    assert mean_loss(toy.loss, given)(toy.params()) == pytest.approx(nll / tokens, rel=1e-5)


def test_each_evaluation_goes_through_the_batches_anew():
    loss = mean_loss(hills.bowl_loss, hills.batches(2, 3))
    for x in ([0, 0, 0, 0], [1, 1, 1, 1]):
        assert loss(hills.params(x)) == pytest.approx(hills.bowl(x), rel=1e-6)


def test_examples_without_supervised_tokens_are_refused():
    with pytest.raises(ValueError, match="no example with supervised tokens"):
        mean_loss(hills.bowl_loss, hills.batches(0))({"kernel": jnp.zeros(4)})
