"""One step on the linear toy loss: the mean over tokens or examples, whatever the rows and micro-batches."""

import jax
import numpy as np
import pytest

from merit_jax.core import sharding, tree
from merit_jax.training.loop import in_micro_batches
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import init_state, make_step
from tests.support import toy

RATE = np.float32(0.5)
SGD = make_optimizer("sgd", b1=0.0)


def take(batch, parts=1, trainable=(".*",), average="token"):
    leaves, frozen = tree.split(toy.params(), trainable)
    step = make_step(toy.loss, SGD, average)
    return leaves, step(init_state(leaves, SGD), frozen, in_micro_batches(batch, parts), RATE)


def packed(seed, rows=8, length=12):
    """(batch of rows of several examples, gradient of the mean of its examples' mean losses in float64, number of examples).

    Examples have one to four places, some without a supervised one; rows end in padding, the last is nothing else.
    """
    rng = np.random.default_rng(seed)
    targets, weights, segments = np.zeros((3, rows, length), np.int32)
    means = []
    for row in range(rows - 1):
        start = 0
        for number in range(1, rng.integers(2, 5)):
            part = slice(start, start := start + int(rng.integers(1, 5)))
            start = min(start, length)
            targets[row, part] = rng.integers(0, toy.VOCAB, start - part.start)
            weights[row, part] = rng.random(start - part.start) < 0.6
            segments[row, part] = number
            supervised = targets[row, part][weights[row, part] > 0]
            means += [toy.FEATURES.astype(np.float64)[supervised].mean(axis=0)] if len(supervised) else []
    batch = toy.batch(targets, weights)._replace(segments=segments)
    return batch, np.mean(means, axis=0), len(means)


def movement(before, state):
    return np.concatenate([np.ravel(before[path] - state.leaves[path]) for path in sorted(before)])


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_can_descend_the_mean_over_examples_that_share_rows(seed, parts):
    batch, expected, examples = packed(seed)
    before, (state, metrics) = take(batch, parts, average="example")
    np.testing.assert_allclose(movement(before, state), RATE * expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, np.linalg.norm(expected), rtol=1e-5)
    assert float(metrics.divisor) == pytest.approx(examples, rel=1e-6)
    assert float(metrics.tokens) == batch.weights.sum()
    assert np.abs(expected - toy.gradient([batch], "token")).max() > 0.01


def test_with_one_example_a_row_the_mean_is_that_of_the_datasets_gradients():
    batch = toy.random_batch(0, rows=8)
    before, (state, _) = take(batch, average="example")
    np.testing.assert_allclose(movement(before, state), RATE * toy.gradient([batch], "example"), rtol=1e-4, atol=1e-6)


def test_an_unknown_average_is_refused():
    with pytest.raises(ValueError, match=r"unknown train\.average 'row'; known: example, token"):
        make_step(toy.loss, SGD, "row")


def test_a_step_descends_the_mean_over_tokens():
    batch = toy.random_batch(0, rows=8)
    before, (state, metrics) = take(batch)
    moved = np.concatenate([np.ravel(before[path] - state.leaves[path]) for path in sorted(before)])
    expected = toy.gradient([batch], "token")
    np.testing.assert_allclose(moved, RATE * expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics.gradient_norm, np.linalg.norm(expected), rtol=1e-5)
    assert (int(state.step), float(metrics.tokens)) == (1, batch.weights.sum())


def test_micro_batches_of_unequal_token_counts_change_nothing():
    batch = toy.random_batch(0, rows=8)
    whole, parts = (take(batch, parts)[1] for parts in (1, 4))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, whole, parts)


def test_micro_batches_hold_each_row_once():
    batch = toy.random_batch(0, rows=8)
    parts = in_micro_batches(batch, 4)
    assert parts.targets.shape == (4, 2, 5)
    assert sorted(map(tuple, parts.targets.reshape(8, 5))) == sorted(map(tuple, batch.targets))


def test_only_trainable_leaves_are_in_the_state_and_theta0_survives():
    before, (state, _) = take(toy.random_batch(0), trainable=("bias",))
    assert list(state.leaves) == ["dense/bias"]
    np.testing.assert_array_equal(before["dense/bias"], toy.params()["dense"]["bias"])


def test_a_batch_of_padding_moves_nothing():
    empty = toy.batch(np.zeros((4, 5), np.int32), np.zeros((4, 5)))
    before, (state, _) = take(empty)
    jax.tree.map(np.testing.assert_array_equal, before, state.leaves)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "adafactor", "sm3", "muon"])
def test_every_step_of_every_branch_runs_the_same_program(name):
    mesh, optimizer = sharding.make_mesh(), make_optimizer(name)
    step = make_step(toy.loss, optimizer)
    axes = {"dense/bias": ("norm",), "dense/kernel": ("layers", "embed")}
    for seed in range(2):
        leaves = tree.flatten(toy.params())
        cut = tree.flatten(sharding.of_params(mesh, axes, leaves))
        leaves = {path: sharding.place(leaf, cut[path]) for path, leaf in leaves.items()}
        state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh))
        for _ in range(2):
            batch = in_micro_batches(toy.random_batch(seed, rows=8), 1)
            state, _ = step(state, {}, sharding.place_batch(batch, mesh, leading=1), RATE)
    assert step._cache_size() == 1
