"""Schedule-Free optimizers train as optax's own do, with the rate of every step, and give the parameters that are evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from merit_jax.core.types import TrainState
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.schedule_free import SCHEDULE_FREE, apply_optimizer, check_schedule, evaluated_leaves

LEAVES = {"layer/kernel": jnp.array([[2.0, -4.0], [1.0, 3.0]]), "norm/scale": jnp.array([2.0, -1.0])}


def bowl(leaves):
    return sum(jnp.sum(jnp.square(leaf - 3)) for leaf in leaves.values())


SLOPE = jax.grad(bowl)


def trained(optimizer, rates, leaves=LEAVES, gradient=SLOPE):
    """The states after each rate."""
    state, states = TrainState(jnp.int32(0), leaves, optimizer.init(leaves)), []
    for rate in rates:
        state = TrainState(state.step + 1, *apply_optimizer(optimizer, gradient(state.leaves), state, np.float32(rate)))
        states.append(state)
    return states


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_trained_and_evaluated_parameters_are_optaxs(name):
    own, params = getattr(optax.contrib, name)(learning_rate=0.05, b1=0.8, weight_decay=0.25), LEAVES
    ours = make_optimizer(name, b1=0.8, weight_decay=0.25)
    state = own.init(params)
    for found in trained(ours, [0.05] * 6):
        updates, state = own.update(jax.grad(bowl)(params), state, params)
        params = optax.apply_updates(params, updates)
        evaluated = optax.contrib.schedule_free_eval_params(state, params)
        for path in LEAVES:
            np.testing.assert_allclose(found.leaves[path], params[path], rtol=1e-6)
            np.testing.assert_allclose(evaluated_leaves(ours)(found)[path], evaluated[path], rtol=1e-5)


def test_with_a_warm_up_the_steps_are_the_papers():
    """Defazio et al. 2024, Algorithm 1 with SGD: x averages z with the squares of the rates as weights."""
    rates, beta = [0.01, 0.02, 0.04, 0.04], 0.9
    x = z = y = np.asarray(LEAVES["norm/scale"], np.float64)
    weights = 0.0
    one = {"w": LEAVES["norm/scale"]}
    optimizer = make_optimizer("schedule_free_sgd", b1=beta)
    for rate, state in zip(rates, trained(optimizer, rates, one), strict=True):
        z = z - rate * 2 * (y - 3)
        weights += rate**2
        x = (1 - rate**2 / weights) * x + rate**2 / weights * z
        y = (1 - beta) * z + beta * x
        np.testing.assert_allclose(state.leaves["w"], y, rtol=1e-6)
        np.testing.assert_allclose(evaluated_leaves(optimizer)(state)["w"], x, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_decay_leaves_out_what_no_decay_names(name):
    optimizer = make_optimizer(name, weight_decay=0.5, no_decay=("norm",))
    (state,) = trained(optimizer, [0.1], gradient=lambda leaves: jax.tree.map(jnp.zeros_like, leaves))
    np.testing.assert_allclose(state.leaves["layer/kernel"], 0.95 * LEAVES["layer/kernel"], rtol=1e-6)
    np.testing.assert_array_equal(state.leaves["norm/scale"], LEAVES["norm/scale"])


def test_gradients_are_clipped_before_they_are_used():
    one = {"w": jnp.array([3.0, 4.0])}
    (state,) = trained(make_optimizer("schedule_free_sgd", clip_norm=1.0), [0.5], one, gradient=lambda leaves: one)
    np.testing.assert_allclose(state.leaves["w"], [3 - 0.5 * 0.6, 4 - 0.5 * 0.8], rtol=1e-6)


def test_other_optimizers_evaluate_what_they_train():
    (state,) = trained(make_optimizer("adamw"), [0.1])
    assert evaluated_leaves(make_optimizer("adamw"))(state) is state.leaves


def test_a_falling_schedule_and_no_interpolation_are_refused():
    check_schedule("schedule_free_sgd", "constant")
    check_schedule("adamw", "cosine")
    with pytest.raises(
        ValueError, match=r"train.schedule = 'cosine'; schedule_free_adamw .*set train.schedule to 'const"
    ):
        check_schedule("schedule_free_adamw", "cosine")
    with pytest.raises(ValueError, match=r"train.b1 = 0; schedule_free_sgd"):
        make_optimizer("schedule_free_sgd", b1=0.0)
