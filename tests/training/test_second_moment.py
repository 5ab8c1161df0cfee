"""The second moment that a branch keeps is Adam's, without the bias of its start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core.types import TrainState
from merit_jax.training.optimizer import known_optimizers, make_optimizer
from merit_jax.training.second_moment import HOLDERS, check_second_moment, second_moment

LEAVES = {"a/kernel": jnp.ones((3, 2)), "b/scale": jnp.ones(3)}
OPTIONS = {"weight_decay": 0.1, "no_decay": ("scale",), "clip_norm": 0.0, "b1": 0.9, "eps": 1e-8}


def after(name: str, gradients: list, b2: float) -> TrainState:
    optimizer = make_optimizer(name, **OPTIONS, b2=b2)
    state = optimizer.init(LEAVES)
    for gradient in gradients:
        state = optimizer.update(gradient, state, LEAVES)[1]
    return TrainState(jnp.int32(len(gradients)), LEAVES, state)


@pytest.mark.parametrize("name", HOLDERS)
@pytest.mark.parametrize("b2", [0.999, 0.5])
def test_it_is_the_weighted_average_of_squared_gradients(name, b2):
    rng = np.random.default_rng(0)
    gradients = [
        {path: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for path, leaf in LEAVES.items()} for _ in range(5)
    ]
    shares = b2 ** np.arange(4, -1, -1)
    found = second_moment(after(name, gradients, b2), name, b2)
    assert found.keys() == LEAVES.keys()
    for path, leaf in found.items():
        squares = np.stack([np.square(np.float64(gradient[path])) for gradient in gradients])
        np.testing.assert_allclose(leaf, np.average(squares, axis=0, weights=shares), rtol=1e-4)


def test_constant_gradients_give_their_square_however_few_steps_there_were():
    gradient = jax.tree.map(lambda leaf: 3 * leaf, LEAVES)
    for steps in (1, 4):
        for leaf in second_moment(after("adamw", [gradient] * steps, 0.999), "adamw", 0.999).values():
            np.testing.assert_allclose(leaf, 9.0, rtol=1e-4)


def test_optimizers_without_one_are_refused_by_name():
    for name in sorted(known_optimizers().keys() - set(HOLDERS)):
        with pytest.raises(
            ValueError, match=f"train.keep_second_moment: train.optimizer '{name}' has no second moment"
        ):
            check_second_moment(name)
    for name in HOLDERS:
        check_second_moment(name)
