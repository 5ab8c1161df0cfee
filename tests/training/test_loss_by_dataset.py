"""A step sums its loss by dataset, over rows that several datasets share, and learns the same bits with and without."""

from functools import cache

import jax
import numpy as np
import pytest

from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Branch, Dataset, DatasetSlice, Example, ReadReport
from merit_jax.data.loader import training_batches
from merit_jax.training.loop import in_micro_batches
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import init_state, make_step
from tests.support import toy

NAMES = ("alone", "birds", "copy", "digits")
NETWORK = toy.Network()
LOSS = next_token_loss(NETWORK, chunk=3)


def datasets():
    """Datasets of different sizes and lengths; the first is not in the branch."""
    rng = np.random.default_rng(0)
    found = []
    for place, name in enumerate(NAMES):
        examples = []
        for _ in range(6 + 5 * place):
            length = int(rng.integers(2, 5 + place))
            supervised = rng.random(length) < 0.7
            supervised[0], supervised[-1] = False, True
            examples.append(Example(rng.integers(0, NETWORK.vocab, length).astype(np.int32), supervised))
        found.append(Dataset(name, examples, (), ReadReport((), "", len(examples), 0, 0, 0)))
    return found


def batches():
    """The packed batches of a branch, each with the last one's padding rows."""
    branch = Branch(tuple(DatasetSlice(name) for name in NAMES[1:]), seed=0)
    return list(training_batches(datasets(), branch, epochs=1, row_length=12, batch_size=4, seed=0).iterator())


@cache
def made(average, count, loss):
    optimizer = make_optimizer("adamw")
    return optimizer, make_step(loss, optimizer, average, count)


def take(batch, *, average="token", parts=1, count=4, loss=LOSS, params=None):
    leaves, frozen = tree.split(NETWORK.params(dtype=np.float32) if params is None else params, [".*"])
    optimizer, step = made(average, count, loss)
    return step(init_state(leaves, optimizer), frozen, in_micro_batches(batch, parts), np.float32(0.1))


def apart(batch, average):
    """The sums of each dataset from the loss of every example, computed alone in float64."""
    segments = np.arange(1, 1 + batch.tokens.shape[1])[:, None, None]
    alone = np.where(batch.segments == segments, batch.weights, 0).reshape(-1, batch.tokens.shape[1])
    rows = jax.tree.map(lambda x: np.concatenate([x] * len(segments)), batch._replace(datasets=None))
    with jax.enable_x64(True):
        nll, tokens = map(np.asarray, jax.jit(LOSS)(NETWORK.params(), rows._replace(weights=alone)))
    owners = np.concatenate([batch.datasets] * len(segments))[np.arange(len(alone)), alone.argmax(axis=1)]
    values = np.stack([nll, tokens] if average == "token" else [nll / np.maximum(tokens, 1), tokens > 0])
    return np.stack([values[:, owners == place].sum(axis=1) for place in range(len(NAMES))], axis=1)


def test_packed_rows_say_which_dataset_each_token_is_from():
    found = batches()
    assert any(
        len(set(row[seg > 0].tolist())) > 1 for b in found for row, seg in zip(b.datasets, b.segments, strict=True)
    )
    supervised = {
        name: sum(int(example.supervised.sum()) for example in dataset.train)
        for name, dataset in zip(NAMES, datasets(), strict=True)
    }
    for place, name in enumerate(NAMES):
        counted = sum(float(b.weights[b.datasets == place].sum()) for b in found)
        assert counted == (supervised[name] if place else 0)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("average", ["token", "example"])
def test_the_sums_of_the_datasets_are_the_steps_and_those_of_each_one_apart(average, parts):
    for batch in batches():
        metrics = take(batch, average=average, parts=parts)[1]
        nll, divisor = metrics.by_dataset
        np.testing.assert_allclose(nll.sum(), metrics.nll, rtol=1e-5)
        np.testing.assert_allclose(divisor.sum(), metrics.divisor, rtol=1e-6)
        np.testing.assert_allclose([nll, divisor], apart(batch, average), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_step_learns_the_same_bits_with_and_without(average, parts):
    for batch in batches():
        with_sums, metrics = take(batch, average=average, parts=parts)
        without, plain = take(batch._replace(datasets=None), average=average, parts=parts, count=0)
        jax.tree.map(np.testing.assert_array_equal, with_sums, without)
        assert plain.by_dataset is None
        for name in ("nll", "divisor", "tokens", "gradient_norm"):
            np.testing.assert_array_equal(getattr(metrics, name), getattr(plain, name))


def test_any_loss_that_is_linear_in_the_weights_is_summed():
    """The toy loss: a token costs the product of the parameters and its feature."""
    batch = toy.random_batch(0, rows=8)
    owners = np.random.default_rng(1).integers(0, 3, batch.tokens.shape).astype(np.int32)
    params = toy.params()
    metrics = take(batch._replace(datasets=owners), count=3, loss=toy.loss, params=params)[1]
    theta = np.concatenate([params["dense"]["bias"], np.ravel(params["dense"]["kernel"])]).astype(np.float64)
    costs = (toy.FEATURES @ theta)[batch.targets] * batch.weights
    for place in range(3):
        np.testing.assert_allclose(metrics.by_dataset.nll[place], costs[owners == place].sum(), rtol=1e-4, atol=1e-5)


def test_sharded_rows_give_the_same_sums():
    batch = jax.tree.map(lambda *rows: np.concatenate(rows), *batches()[:2])
    whole = take(batch)[1].by_dataset
    mesh = sharding.make_mesh(data=2)
    leaves, frozen = tree.split(NETWORK.params(dtype=np.float32), [".*"])
    leaves = {path: sharding.place(leaf, jax.NamedSharding(mesh, jax.P())) for path, leaf in leaves.items()}
    optimizer = make_optimizer("adamw")
    step = make_step(LOSS, optimizer, "token", len(NAMES))
    state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh))
    placed = sharding.place_batch(in_micro_batches(batch, 1), mesh, leading=1)
    found = step(state, frozen, placed, np.float32(0.1))[1].by_dataset
    for part, expected in zip(found, whole, strict=True):
        np.testing.assert_allclose(sharding.to_host(part), expected, rtol=1e-5)


def test_a_batch_that_does_not_say_is_refused():
    with pytest.raises(ValueError, match="does not say which dataset each token is from"):
        take(batches()[0]._replace(datasets=None))
