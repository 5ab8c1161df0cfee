"""Products of the Gauss-Newton matrix against dense Hessians, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.diagnostics.lanczos import gaussian
from merit_jax.gradients.compressor import leaf_shardings
from merit_jax.gradients.curvature import GaussNewton, gauss_newton_product
from merit_jax.gradients.curvature import _accumulator as product_step
from merit_jax.gradients.estimate import AVERAGES
from merit_jax.gradients.estimate import _accumulator as gradient_step
from merit_jax.models import build
from tests.support import tiny, toy

NETWORK = toy.Network()
BATCHES = [NETWORK.batch(0), NETWORK.batch(1, rows=3, length=7)]
BATCHES[1].weights[0, 3:] = 0  # an example with fewer supervised tokens
BATCHES[1].weights[2] = 0  # a row of padding


class Linear(toy.Network):
    """Logits that are linear in the trained parameters, whose loss has the Gauss-Newton matrix for its Hessian."""

    def unembed(self, params, hidden):
        return hidden @ params["head"]["kernel"]

    def params(self, seed=0, dtype=np.float64):
        kernel = np.random.default_rng(seed).normal(size=(self.width, self.vocab))
        return {**super().params(seed, dtype), "head": {"kernel": jnp.asarray(kernel, dtype)}}


def weights_of(average):
    """The weight of every token of every batch in the mean."""
    tokens = [batch.weights.sum(axis=1, keepdims=True, dtype=np.float64) for batch in BATCHES]
    if average == "token":
        return [batch.weights / sum(map(np.sum, tokens)) for batch in BATCHES]
    count = sum(int((each > 0).sum()) for each in tokens)
    return [batch.weights / np.maximum(each, 1) / count for batch, each in zip(BATCHES, tokens, strict=True)]


def matrix(network=NETWORK, trainable=(".*",), dtype=np.float64, **options):
    leaves, frozen = tree.split(network.params(dtype=dtype), trainable)
    return GaussNewton(network, frozen, BATCHES, **{"chunk": 2, **options}), leaves


def mean_loss(found, average, token_loss):
    """The mean over supervised tokens of a function of their logits and their targets, of the flat trainable leaves."""

    def loss(leaves):
        total = 0.0
        for batch, weights in zip(BATCHES, weights_of(average), strict=True):
            params = tree.join(leaves, found.frozen)
            logits = found.model.unembed(params, found.model.hidden(params, batch))
            total += (weights * token_loss(jax.nn.log_softmax(logits), batch)).sum()
        return total

    return loss


def dense_hessian(loss, leaves):
    flat, unravel = ravel_pytree(leaves)
    return np.asarray(jax.jit(jax.hessian(lambda flat: loss(unravel(flat))))(flat))


def nll(logs, batch):
    return -jnp.take_along_axis(logs, batch.targets[..., None], -1)[..., 0]


def own_predictions(found, leaves):
    """Cross-entropy against the predictions at `leaves`, whose Hessian there is the Gauss-Newton matrix."""
    params = tree.join(leaves, found.frozen)

    def loss(logs, batch):
        return -(jax.nn.softmax(found.model.unembed(params, found.model.hidden(params, batch))) * logs).sum(-1)

    return loss


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("average", ["example", "token"])
@pytest.mark.parametrize("trainable", [(".*",), ("kernel",)])
def test_a_product_is_that_of_the_dense_hessian_without_the_curvature_of_the_logits(trainable, average):
    found, leaves = matrix(trainable=trainable, average=average)
    dense = dense_hessian(mean_loss(found, average, own_predictions(found, leaves)), leaves)
    assert np.linalg.eigvalsh(dense).min() > -1e-12
    whole = dense_hessian(mean_loss(found, average, nll), leaves)
    assert np.abs(whole - dense).max() > 1e-2
    v = gaussian(leaves, 0)
    product = toy.vector(gauss_newton_product(found, leaves, v))
    assert product.dtype == np.float64
    np.testing.assert_allclose(product, dense @ toy.vector(v), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_it_is_the_whole_hessian_where_logits_are_linear_in_what_is_trained():
    found, leaves = matrix(Linear(), ("head",))
    dense = dense_hessian(mean_loss(found, "example", nll), leaves)
    v = gaussian(leaves, 1)
    np.testing.assert_allclose(
        toy.vector(gauss_newton_product(found, leaves, v)), dense @ toy.vector(v), rtol=1e-9, atol=1e-12
    )


@pytest.mark.usefixtures("x64")
def test_the_layers_of_a_decoder_that_are_scanned_and_computed_again_have_the_same_matrix():
    model = build(tiny.config(layers=2, remat="full"))
    leaves, _ = tree.split(jax.tree.map(jnp.asarray, tiny.params(model)), (".*",))
    batch = NETWORK.batch(0, rows=2, length=6)
    found = GaussNewton(model, {}, [batch], "token", 4)
    at = tree.join(leaves, {})
    p = jax.nn.softmax(model.unembed(at, model.hidden(at, batch)))

    def loss(leaves):
        params = tree.join(leaves, {})
        logs = jax.nn.log_softmax(model.unembed(params, model.hidden(params, batch)))
        return -(batch.weights * (p * logs).sum(-1)).sum() / batch.weights.sum()

    v = gaussian(leaves, 0)
    expected = jax.jit(lambda leaves, v: jax.jvp(jax.grad(loss), (leaves,), (v,))[1])(leaves, v)
    got = gauss_newton_product(found, leaves, v)
    error = jax.tree.map(jnp.subtract, got, expected)
    assert float(tree.norm(error)) < 1e-4 * float(tree.norm(expected))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 1, 2), (2, 2, 2), (1, 8, 1)])
def test_devices_change_nothing_and_products_lie_as_the_leaves_do(shape):
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = sharding.make_mesh(*shape, devices=devices)
    batches = [NETWORK.batch(seed, rows=8) for seed in (0, 1)]
    leaves, _ = tree.split(NETWORK.params(dtype=np.float32), (".*",))
    rows = "fsdp" if shape[1] <= NETWORK.width else None
    specs = {"dense/kernel": PartitionSpec(rows, "tensor"), "embedding": PartitionSpec(None, rows)}
    spread = jax.device_put(leaves, {path: NamedSharding(mesh, spec) for path, spec in specs.items()})
    alone = GaussNewton(NETWORK, {}, batches)
    together = alone._replace(place=lambda batch: sharding.place_batch(batch, mesh))
    v = gaussian(leaves, 0)
    found = gauss_newton_product(together, spread, jax.device_put(v, {path: spread[path].sharding for path in v}))
    expected = gauss_newton_product(alone, leaves, v)
    np.testing.assert_allclose(toy.vector(found), toy.vector(expected), rtol=1e-4, atol=1e-5)
    assert all(found[path].sharding.is_equivalent_to(spread[path].sharding, 2) for path in spread)


def test_each_shape_is_compiled_once_for_all_products():
    traced = []

    class Counted(toy.Network):
        def hidden(self, params, batch):
            traced.append(batch.tokens.shape)
            return super().hidden(params, batch)

    found, leaves = matrix(Counted(), dtype=np.float32)
    for seed in range(3):
        gauss_newton_product(found, leaves, gaussian(leaves, seed))
    assert traced == [(4, 5), (3, 7)]


def test_products_of_narrow_parameters_are_summed_in_float32():
    found, leaves = matrix(dtype=jnp.bfloat16)
    product = gauss_newton_product(found, leaves, gaussian(leaves, 0))
    assert {leaf.dtype for leaf in product.values()} == {jnp.dtype(jnp.float32)}


def test_a_product_takes_less_than_two_gradients():
    found, leaves = matrix(dtype=np.float32)
    layout, one = leaf_shardings(leaves), jnp.ones(())
    batch, each = NETWORK.batch(0, rows=64, length=32), (next_token_loss(NETWORK, 64), AVERAGES["example"], 1)
    stacks = jax.tree.map(lambda x: x[None], (leaves, one, batch))
    gradient = gradient_step(*each, tuple(layout.items())).lower(*stacks[:2], leaves, {}, stacks[2])
    product = product_step(found.model.hidden, found.model.unembed, "example", 64, tuple(layout.items()))
    product = product.lower(leaves, one, leaves, {}, leaves, batch)
    flops = [program.compile().cost_analysis()["flops"] for program in (gradient, product)]
    assert flops[0] < flops[1] < 2 * flops[0]


def test_nothing_to_average_and_unknown_averages_are_refused():
    found, leaves = matrix(dtype=np.float32)
    empty = BATCHES[0]._replace(weights=np.zeros_like(BATCHES[0].weights))
    with pytest.raises(ValueError, match="no supervised token in the batches"):
        gauss_newton_product(found._replace(batches=[empty]), leaves, leaves)
    with pytest.raises(ValueError, match=r"unknown gradients.average 'mean'; known: example, token"):
        gauss_newton_product(found._replace(average="mean"), leaves, leaves)
