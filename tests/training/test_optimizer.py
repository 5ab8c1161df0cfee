"""Schedules and optimizers against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.training.optimizer import make_optimizer, make_schedule


def rates(name, warmup=0.25, steps=8):
    schedule = make_schedule(name, 1.0, warmup, steps)
    return [float(schedule(step)) for step in range(steps)]


def test_the_rate_rises_linearly_from_above_zero_to_its_peak():
    for name in ("constant", "linear", "cosine"):
        np.testing.assert_allclose(rates(name)[:3], [1 / 3, 2 / 3, 1], rtol=1e-6)


def test_after_warm_up_each_schedule_follows_its_formula():
    done = np.arange(6) / 6
    np.testing.assert_allclose(rates("constant")[2:], np.ones(6), rtol=1e-6)
    np.testing.assert_allclose(rates("linear")[2:], 1 - done, rtol=1e-5)
    np.testing.assert_allclose(rates("cosine")[2:], (1 + np.cos(np.pi * done)) / 2, rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_without_warm_up_the_first_step_has_the_peak_rate(name):
    assert rates(name, warmup=0.0)[0] == 1
    assert rates(name, warmup=0.03, steps=1)[0] == 1


def test_a_warm_up_of_the_whole_run_and_an_unknown_schedule_are_refused():
    with pytest.raises(ValueError, match=r"share of the steps in \[0, 1\), got 1.0"):
        make_schedule("cosine", 1.0, 1.0, 10)
    with pytest.raises(ValueError, match="'step'; known: constant, cosine, linear"):
        make_schedule("step", 1.0, 0.0, 10)


def update(name, gradient, leaves, **options):
    optimizer = make_optimizer(name, **options)
    updates, _ = optimizer.update(gradient, optimizer.init(leaves), leaves)
    return {path: 0.1 * update for path, update in updates.items()}


LEAVES = {"layer/kernel": jnp.array([2.0, -4.0]), "layer/norm/scale": jnp.array([2.0, -4.0])}
GRADIENT = {path: jnp.array([3.0, 4.0]) for path in LEAVES}


def test_sgd_is_the_gradient_times_the_rate():
    updates = update("sgd", GRADIENT, LEAVES, b1=0.0)
    np.testing.assert_allclose(updates["layer/kernel"], [-0.3, -0.4], rtol=1e-6)


def test_decay_leaves_out_what_no_decay_names():
    updates = update("sgd", GRADIENT, LEAVES, b1=0.0, weight_decay=0.5, no_decay=("norm",))
    np.testing.assert_allclose(updates["layer/kernel"], [-0.3 - 0.1, -0.4 + 0.2], rtol=1e-6)
    np.testing.assert_allclose(updates["layer/norm/scale"], [-0.3, -0.4], rtol=1e-6)


def test_clipping_scales_the_whole_gradient():
    one = {"w": GRADIENT["layer/kernel"]}
    updates = update("sgd", one, one, b1=0.0, clip_norm=1.0)
    np.testing.assert_allclose(updates["w"], [-0.1 * 3 / 5, -0.1 * 4 / 5], rtol=1e-6)


def test_adamws_first_step_is_the_sign_of_the_gradient():
    np.testing.assert_allclose(update("adamw", GRADIENT, LEAVES)["layer/kernel"], [-0.1, -0.1], rtol=1e-5)


def test_an_unknown_optimizer_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"train.optimizer 'lion'; known: adamw, sgd"):
        make_optimizer("lion")
