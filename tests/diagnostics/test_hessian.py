"""Values, gradients and Hessian-vector products against finite differences, explicit Hessians and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import NamedSharding, PartitionSpec

from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.hessian import Objective
from merit_jax.diagnostics.lanczos import gaussian
from merit_jax.models import build
from tests.support import tiny, toy

NETWORK = toy.Network()
BATCHES = [NETWORK.batch(0), NETWORK.batch(1)]
LOSS = next_token_loss(NETWORK, chunk=2)


def network(trainable=(".*",), dtype=np.float64, **options) -> tuple[Objective, dict]:
    leaves, frozen = tree.split(NETWORK.params(dtype=dtype), trainable)
    return Objective(LOSS, frozen, BATCHES, **options), leaves


def explicit(objective: Objective, leaves: dict) -> np.ndarray:
    """The Hessian written out, of a mean over tokens."""
    flat, unravel = ravel_pytree(leaves)

    def loss(flat):
        sums = [LOSS(tree.join(unravel(flat), objective.frozen), batch) for batch in objective.batches]
        return sum(nll.sum() for nll, _ in sums) / sum(tokens.sum() for _, tokens in sums)

    return np.asarray(jax.jit(jax.hessian(loss))(flat))


def moved(leaves: dict, step: float, direction: dict) -> dict:
    return jax.tree.map(lambda x, d: x + step * d, leaves, direction)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("average", ["token", "example"])
def test_a_product_is_the_finite_difference_of_the_gradient(average):
    objective, leaves = network(average=average)
    v, step = gaussian(leaves, 0), 1e-5
    ahead, behind = (toy.vector(hessian.gradient(objective, moved(leaves, sign * step, v))) for sign in (1, -1))
    found = toy.vector(hessian.product(objective, leaves, v))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_a_gradient_is_the_finite_difference_of_the_loss():
    objective, leaves = network()
    v, step = gaussian(leaves, 1), 1e-5
    ahead, behind = (float(hessian.loss(objective, moved(leaves, sign * step, v))) for sign in (1, -1))
    np.testing.assert_allclose(
        tree.dot(hessian.gradient(objective, leaves), v), (ahead - behind) / (2 * step), rtol=1e-7
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("trainable", [(".*",), ("kernel",)])
def test_a_product_is_that_of_the_explicit_hessian_of_the_trainable_leaves(trainable):
    objective, leaves = network(trainable)
    v = gaussian(leaves, 0)
    expected = explicit(objective, leaves) @ toy.vector(v)
    np.testing.assert_allclose(toy.vector(hessian.product(objective, leaves, v)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_expansion_along_a_direction_has_the_loss_its_slope_and_its_curvature():
    objective, leaves = network()
    v = gaussian(leaves, 2)
    found, flat = hessian.along(objective, leaves, v), toy.vector(v)
    expected = (
        float(hessian.loss(objective, leaves)),
        toy.vector(hessian.gradient(objective, leaves)) @ flat,
        flat @ explicit(objective, leaves) @ flat,
    )
    np.testing.assert_allclose([float(x) for x in found], expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_averages_over_examples_and_over_tokens_weigh_rows_differently():
    """Two quadratic datasets, one of them with three times the tokens."""
    toys = toy.Quadratic(np.diag([2.0, 1.0]), np.array([[0.0, 0.0], [4.0, 0.0]]))
    rows = toys.batch([0, 1])
    longer = rows._replace(weights=np.array([[1, 0], [1, 1]], np.float32) * np.array([[1], [1.5]], np.float32))
    at = toy.leaves(np.zeros(2))
    for average, share in (("example", 1 / 2), ("token", 3 / 4)):
        objective = toys.objective()._replace(batches=[longer], average=average)
        np.testing.assert_allclose(hessian.loss(objective, at), share * 16)
        np.testing.assert_allclose(toy.vector(hessian.gradient(objective, at)), [share * -8, 0])


def test_how_examples_are_batched_does_not_matter():
    objective, leaves = network(dtype=np.float32)
    objective = objective._replace(batches=[BATCHES[0], NETWORK.batch(2, rows=2, length=7)])
    rows = [
        jax.tree.map(lambda x, i=i: x[i : i + 1], batch)
        for batch in objective.batches
        for i in range(len(batch.tokens))
    ]
    v = gaussian(leaves, 0)
    whole, single = (hessian.product(each, leaves, v) for each in (objective, objective._replace(batches=rows)))
    np.testing.assert_allclose(toy.vector(whole), toy.vector(single), rtol=1e-4, atol=1e-5)


def test_devices_change_nothing_and_results_lie_as_the_leaves_do():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    batches = [NETWORK.batch(seed, rows=8) for seed in (0, 1)]
    leaves, _ = tree.split(NETWORK.params(dtype=np.float32), (".*",))
    specs = {"dense/kernel": PartitionSpec("fsdp", "tensor"), "embedding": PartitionSpec(None, "fsdp")}
    spread = jax.device_put(leaves, {path: NamedSharding(mesh, spec) for path, spec in specs.items()})
    alone = Objective(LOSS, {}, batches)
    together = alone._replace(place=lambda batch: sharding.place_batch(batch, mesh))
    v, w = gaussian(leaves, 0), gaussian(spread, 0)
    np.testing.assert_array_equal(toy.vector(v), toy.vector(w))
    found = hessian.product(together, spread, w)
    np.testing.assert_allclose(toy.vector(found), toy.vector(hessian.product(alone, leaves, v)), rtol=1e-4, atol=1e-5)
    assert all(found[path].sharding.is_equivalent_to(spread[path].sharding, 2) for path in spread)


def test_products_of_narrow_parameters_are_summed_in_float32():
    objective, leaves = network(dtype=jnp.bfloat16)
    found = hessian.product(objective, leaves, gaussian(leaves, 0))
    assert {leaf.dtype for leaf in found.values()} == {jnp.dtype(jnp.float32)}


def test_the_decoder_has_a_symmetric_hessian_that_its_gradient_confirms():
    """Through scanned, recomputed layers and the chunked loss, in float32."""
    model = build(tiny.config(layers=2, remat="full"))
    leaves, _ = tree.split(jax.tree.map(jnp.asarray, tiny.params(model)), (".*",))
    objective = Objective(next_token_loss(model, chunk=4), {}, [NETWORK.batch(0, rows=2, length=6)])
    u, v = gaussian(leaves, 0), gaussian(leaves, 1)
    Hu, Hv = (hessian.product(objective, leaves, x) for x in (u, v))
    scale = float(tree.norm(u) * tree.norm(Hv))
    assert abs(float(tree.dot(u, Hv) - tree.dot(v, Hu))) < 1e-5 * scale
    ahead, behind = (hessian.gradient(objective, moved(leaves, step, v)) for step in (1e-3, -1e-3))
    difference = toy.vector(jax.tree.map(lambda a, b: (a - b) / 2e-3, ahead, behind))
    assert np.linalg.norm(toy.vector(Hv) - difference) < 1e-2 * np.linalg.norm(difference)


def test_nothing_to_average_and_unknown_averages_are_refused():
    objective, leaves = network(dtype=np.float32)
    empty = BATCHES[0]._replace(weights=np.zeros_like(BATCHES[0].weights))
    with pytest.raises(ValueError, match="no supervised token in the batches"):
        hessian.loss(objective._replace(batches=[empty]), leaves)
    with pytest.raises(ValueError, match="unknown average 'mean'; known: example, token"):
        hessian.loss(objective._replace(average="mean"), leaves)
