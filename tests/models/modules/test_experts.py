"""Mixtures of experts: the sum over a token's experts, its gradients, its Gram matrices, and the same on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Batch
from merit_jax.models.interface import Experts
from merit_jax.models.modules.experts import MoE
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import init_state, make_step
from tests.support import tiny

EXPERTS = Experts(total=5, chosen=2)
CONFIG = tiny.config("mixtral", experts=EXPERTS)


@pytest.fixture(scope="module")
def layer():
    """One layer's parameters, and inputs [2, 7, width]."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, CONFIG.hidden_size)), jnp.float32)
    shapes = nn.meta.unbox(jax.eval_shape(lambda: MoE(CONFIG).init(jax.random.key(0), x))["params"])
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32), shapes), x


def by_hand(params, x, experts=EXPERTS):
    """Every token's experts, one after the other, in float64."""
    p, x = {path: np.float64(leaf) for path, leaf in tree.flatten(params).items()}, np.float64(x)
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        token = x[place]
        scores = np.exp(token @ p["router/kernel"])
        scores /= scores.sum()
        chosen = np.argsort(-scores)[: experts.chosen]
        share = scores[chosen] / (scores[chosen].sum() if experts.normalised else 1)
        for weight, expert in zip(share, chosen, strict=True):
            gate, up = token @ p["gate/kernel"][expert], token @ p["up/kernel"][expert]
            out[place] += weight * ((gate / (1 + np.exp(-gate)) * up) @ p["down/kernel"][expert])
    return out


@pytest.mark.parametrize("experts", [EXPERTS, Experts(5, 2, normalised=False), Experts(5, 1), Experts(5, 5)])
def test_a_token_gets_the_weighted_sum_of_its_experts(layer, experts):
    params, x = layer
    config = tiny.config("mixtral", experts=experts)
    found = MoE(config).apply({"params": params}, x)
    np.testing.assert_allclose(found, by_hand(params, x, experts), atol=1e-5)


def test_gradients_of_several_datasets_at_once_are_those_of_each(layer):
    params, x = layer

    def loss(p, x):
        return (MoE(CONFIG).apply({"params": p}, x[None]) ** 2).sum()

    together = jax.vmap(jax.grad(loss), (None, 0))(params, x)
    for k in range(len(x)):
        alone = jax.grad(loss)(params, x[k])
        for path, leaf in tree.flatten(alone).items():
            np.testing.assert_allclose(tree.flatten(together)[path][k], leaf, atol=1e-4, err_msg=path)


def test_products_with_the_hessian_are_those_of_finite_differences(layer):
    p, x = layer
    rng = np.random.default_rng(1)
    v = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), p)
    v["router"]["kernel"] = jnp.zeros_like(v["router"]["kernel"])  # another choice of experts is another function
    gradient = jax.grad(lambda p: (MoE(CONFIG).apply({"params": p}, x) ** 2).mean())
    product = tree.flatten(jax.jvp(gradient, (p,), (v,))[1])
    ahead, behind = (tree.flatten(gradient(jax.tree.map(lambda a, b, s=s: a + s * 1e-3 * b, p, v))) for s in (1, -1))
    for path, leaf in product.items():
        scale = float(np.abs(leaf).max())
        np.testing.assert_allclose(leaf, (ahead[path] - behind[path]) / 2e-3, atol=0.02 * scale, err_msg=path)


def test_gram_matrices_are_of_each_experts_own_inputs():
    model = tiny.model("mixtral", experts=EXPERTS, layers=1)
    params, rows = tiny.params(model), tiny.rows(7, 4, width=9)
    grams, counts = model.input_grams(params, rows)
    kernels = {path: leaf for path, leaf in tree.flatten(model.abstract).items() if path.endswith("kernel")}
    assert {path: leaf.shape for path, leaf in grams.items()} == {
        path: (*leaf.shape[:-1], leaf.shape[-2]) for path, leaf in kernels.items()
    }
    for name in ("gate", "up", "down"):
        assert np.asarray(counts[f"layers/mlp/{name}/kernel"]).sum() == 11 * EXPERTS.chosen
    # the router's inputs are each expert's, taken `chosen` times in all
    total = np.asarray(grams["layers/mlp/gate/kernel"])[0].sum(axis=0)
    np.testing.assert_allclose(total, EXPERTS.chosen * np.asarray(grams["layers/mlp/router/kernel"])[0], rtol=1e-4)
    wide = jax.tree.map(lambda leaf: np.pad(leaf, [(0, 1), (0, 5)]), rows)
    for path, leaf in model.input_grams(params, wide)[0].items():
        np.testing.assert_allclose(leaf, grams[path], rtol=1e-4, atol=1e-4, err_msg=path)


def trained(*sizes):
    """Leaves after a step on a mesh."""
    count = int(np.prod(sizes))
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:count])
    model = tiny.model(
        "mixtral",
        experts=Experts(4, 2),
        hidden_size=32,
        mlp_size=64,
        heads=4,
        placement=sharding.Placement(lambda: mesh),
    )
    shardings = tree.flatten(sharding.of_params(mesh, model.logical_axes, model.abstract))
    optimizer = make_optimizer("sgd")
    leaves = {path: sharding.place(leaf, shardings[path]) for path, leaf in tree.flatten(tiny.params(model)).items()}
    state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh))
    rows = tiny.rows(*[9] * 8, width=9)
    targets = np.roll(rows.tokens, -1, axis=1)
    batch = Batch(rows.tokens, targets, rows.segments.astype(np.float32), rows.positions, rows.segments)
    placed = sharding.place_batch(jax.tree.map(lambda a: a[None], batch), mesh, leading=1)
    state, _ = make_step(next_token_loss(model, 32), optimizer)(state, {}, placed, np.float32(0.1))
    return jax.device_get(state.leaves)


def test_devices_change_nothing():
    expected = trained(1, 1, 1)
    for path, leaf in trained(2, 2, 2).items():
        np.testing.assert_allclose(leaf, expected[path], atol=1e-5 * np.abs(expected[path]).max(), err_msg=path)
