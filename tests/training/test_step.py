"""One step on the linear toy loss: token-weighted, whatever the micro-batches."""

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


def take(batch, parts=1, trainable=(".*",)):
    leaves, frozen = tree.split(toy.params(), trainable)
    step = make_step(toy.loss, SGD)
    return leaves, step(init_state(leaves, SGD), frozen, in_micro_batches(batch, parts), RATE)


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
