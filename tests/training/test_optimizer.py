"""Schedules and optimizers against their formulas."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from merit_jax.training import optimizer
from merit_jax.training.optimizer import UNFIT, known_optimizers, make_optimizer, make_schedule
from merit_jax.training.schedule_free import SCHEDULE_FREE


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


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_the_parts_of_a_schedule_are_together_the_whole(name):
    whole = make_schedule(name, 2.0, 0.25, 12)
    parts = [make_schedule(name, 2.0, 0.25, 4, (part / 3, (part + 1) / 3)) for part in range(3)]
    rates = [float(part(step)) for part in parts for step in range(4)]
    assert rates == [float(whole(step)) for step in range(12)]
    assert len(set(rates)) > 3


def test_a_warm_up_of_the_whole_run_and_an_unknown_schedule_are_refused():
    with pytest.raises(ValueError, match=r"share of the steps in \[0, 1\), got 1.0"):
        make_schedule("cosine", 1.0, 1.0, 10)
    with pytest.raises(ValueError, match="'step'; known: constant, cosine, linear"):
        make_schedule("step", 1.0, 0.0, 10)


def update(name, gradient, leaves, **options):
    made = make_optimizer(name, **options)
    updates, _ = made.update(gradient, made.init(leaves), leaves)
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
    with pytest.raises(
        ValueError, match=r"unknown train.optimizer 'lyon'; known: acprop, .*, adamw, .*, lion, .*, sgd"
    ):
        make_optimizer("lyon")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("lbfgs", "more than gradients"), ("fromage", "not proportional"), ("prodigy", "a learning rate of its own")],
)
def test_an_unfit_optimizer_says_why_and_lists_the_known_ones(name, reason):
    with pytest.raises(ValueError, match=rf"{name}.*{reason}.*; use one of .*adamw"):
        make_optimizer(name)


def test_every_optimizer_with_a_learning_rate_is_known_or_unfit():
    rated = {**optimizer._rated(optax), **optimizer._rated(optax.contrib)}
    assert rated.keys() == known_optimizers().keys() | UNFIT.keys()
    assert "sgd" in rated


def stacked():
    """Leaves of every kind that models have: a stack of kernels, a kernel, an embedding, a vector."""
    rng = np.random.default_rng(0)
    shapes = {"layers/kernel": (2, 4, 6), "head/kernel": (4, 6), "embed/embedding": (8, 4), "norm/scale": (6,)}
    return {path: jnp.asarray(rng.standard_normal(shape), jnp.float32) for path, shape in shapes.items()}


def bowl(leaves):
    return sum(jnp.sum(jnp.square(leaf - 3)) for leaf in leaves.values())


def trained(made, leaves, rate, steps=30):
    @jax.jit
    def step(leaves, state):
        updates, state = made.update(jax.grad(bowl)(leaves), state, leaves)
        return optax.apply_updates(leaves, jax.tree.map(lambda update: rate * update, updates)), state

    state = made.init(leaves)
    for _ in range(steps):
        leaves, state = step(leaves, state)
    return leaves


@pytest.mark.parametrize("name", sorted(known_optimizers().keys() - {*SCHEDULE_FREE}))
def test_known_optimizers_descend_in_proportion_to_their_rate(name):
    """The rate that multiplies the updates does what the optimizer's own learning rate would."""
    leaves, make = stacked(), known_optimizers()[name]
    inner = {key: value for key, value in {"b1": 0.9, "b2": 0.999}.items() if key in inspect.signature(make).parameters}
    outside = trained(make(learning_rate=1.0, **inner), leaves, 2**-7)
    inside = trained(make(learning_rate=2**-7, **inner), leaves, 1.0)
    for path in leaves:
        np.testing.assert_allclose(outside[path], inside[path], rtol=1e-4, atol=1e-5)
    assert bowl(trained(make_optimizer(name), leaves, 2**-7)) < bowl(leaves)


@pytest.mark.parametrize("name", ["lion", "adafactor", "muon", "novograd"])
def test_decay_is_decoupled_whether_the_optimizer_has_it_or_not(name):
    """Without a gradient, what may decay shrinks by the rate times the decay, and the rest stays."""
    leaves = stacked()
    made = make_optimizer(name, weight_decay=0.5, no_decay=("norm",))
    updates, _ = made.update(jax.tree.map(jnp.zeros_like, leaves), made.init(leaves), leaves)
    for path, leaf in leaves.items():
        np.testing.assert_allclose(updates[path], 0 if "norm" in path else -0.5 * leaf, atol=1e-6)


def test_muon_orthogonalises_each_kernel_of_a_stack():
    leaves = stacked()
    made = make_optimizer("muon")
    updates, _ = made.update(jax.grad(bowl)(leaves), made.init(leaves), leaves)
    for matrix in (*updates["layers/kernel"], updates["head/kernel"]):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values.max() < 2 * values.min()


def test_muon_takes_the_factors_of_low_rank_updates_as_matrices_and_nothing_else_beside_kernels():
    rng = np.random.default_rng(0)
    shapes = {"kernel_lora_a": (2, 8, 3), "kernel_lora_b": (2, 3, 8), "kernel_dora_magnitude": (2, 8), "scale": (2, 8)}
    leaves = {f"layers/up/{name}": jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    made = make_optimizer("muon")
    updates, _ = made.update(leaves, made.init(leaves), leaves)
    for name in ("kernel_lora_a", "kernel_lora_b"):
        for matrix in updates[f"layers/up/{name}"]:
            values = np.linalg.svd(matrix, compute_uv=False)
            assert values.max() < 2 * values.min()
    for name in ("kernel_dora_magnitude", "scale"):
        np.testing.assert_allclose(np.ptp(np.abs(updates[f"layers/up/{name}"])), 0, atol=1e-3)  # Adam's first step


def test_adamw_and_sgd_are_what_they_were():
    """To the bit: AdamW and SGD with momentum, written out."""
    leaves, options = stacked(), {"weight_decay": 0.1, "no_decay": ("norm",), "b1": 0.8}

    def mask(leaves):
        return {path: "norm" not in path for path in leaves}

    adamw = optax.adamw(1.0, b1=0.8, b2=0.999, eps=1e-8, weight_decay=0.1, mask=mask)
    sgd = optax.chain(optax.trace(0.8), optax.add_decayed_weights(0.1, mask=mask), optax.scale(-1.0))
    for name, expected in (("adamw", adamw), ("sgd", sgd)):
        for path, leaf in trained(make_optimizer(name, **options), leaves, 2**-7, steps=5).items():
            np.testing.assert_array_equal(leaf, trained(expected, leaves, 2**-7, steps=5)[path])


def test_an_optimizer_keeps_its_own_constants_where_none_is_given():
    leaves, gradient = {"w": np.float32([1.0, 2.0])}, {"w": np.float32([1e-5, -1e-5])}
    for name in ("adafactor", "adabelief", "yogi"):
        own = getattr(optax, name)(learning_rate=1.0)
        ours = make_optimizer(name)
        expected, _ = own.update(gradient, own.init(leaves), leaves)
        found, _ = ours.update(gradient, ours.init(leaves), leaves)
        np.testing.assert_array_equal(found["w"], expected["w"], err_msg=name)


def test_a_constant_that_is_given_reaches_the_optimizer():
    leaves, gradient = {"w": np.float32([1.0])}, {"w": np.float32([1e-5])}
    own, ours = optax.yogi(1.0, eps=0.5), make_optimizer("yogi", eps=0.5)
    expected, _ = own.update(gradient, own.init(leaves), leaves)
    found, _ = ours.update(gradient, ours.init(leaves), leaves)
    np.testing.assert_array_equal(found["w"], expected["w"])


def test_an_optimizer_that_checkpoints_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"galore.*checkpoints cannot hold"):
        make_optimizer("galore")
