"""The mean Gram matrices of inputs over batches, of trainable kernels alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core.types import Batch
from merit_jax.gradients.input_grams import mean_input_grams

PARAMS = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "tower": {"kernel": jnp.ones((2, 1))}}


def batch(tokens):
    ids = jnp.asarray(tokens, jnp.int32)
    return Batch(ids, ids, jnp.ones(ids.shape), ids, (ids > 0).astype(jnp.int32))


def grams(params, batch):
    real = batch.segments.reshape(-1) > 0
    x = jnp.where(real[:, None], batch.tokens.reshape(-1, 1) * jnp.array([1.0, -2.0]), 0)
    none = jnp.zeros(())
    return {"dense/kernel": x.T @ x, "tower/kernel": none * x.T @ x}, {
        "dense/kernel": real.sum() * 1.0,
        "tower/kernel": none,
    }


def test_it_is_the_mean_over_all_inputs_that_are_no_padding():
    found = mean_input_grams(grams, PARAMS, [batch([[1, 2, 0]]), batch([[3, 0, 0]])])
    np.testing.assert_allclose(found["dense/kernel"], (1 + 4 + 9) / 3 * np.array([[1, -2], [-2, 4]]))
    np.testing.assert_array_equal(found["tower/kernel"], np.zeros((2, 2)))


def test_kernels_that_are_not_trained_are_left_out():
    assert list(mean_input_grams(grams, PARAMS, [batch([[1]])], trainable=("dense",))) == ["dense/kernel"]


@pytest.mark.parametrize(("batches", "trainable"), [([], (".*",)), ([batch([[1]])], ("bias",))])
def test_nothing_to_take_them_of_is_refused(batches, trainable):
    with pytest.raises(ValueError, match="no example, or no trainable kernel"):
        mean_input_grams(grams, PARAMS, batches, trainable=trainable)
