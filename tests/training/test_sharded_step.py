"""The training step on several devices: the same numbers, a share of the memory each."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.support.tiny as tiny
from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Batch
from merit_jax.models import build
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import init_state, make_step

SIZES = {"hidden_size": 64, "layers": 2, "heads": 8, "kv_heads": 8, "head_dim": 8, "mlp_size": 128, "tied": True}
CONFIG = tiny.config(vocab_size=256, **SIZES)
OPTIMIZER = make_optimizer("adamw", clip_norm=1.0, eps=1e-3)  # which does not magnify rounding where gradients vanish
RATE = np.float32(1e-3)


def mesh_of(*sizes):
    return sharding.make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])


def ready(mesh, average="token"):
    """(step, state, placed batch of three examples a row) on a mesh."""
    model = build(CONFIG, placement=sharding.Placement(lambda: mesh))
    shardings = tree.flatten(sharding.of_params(mesh, model.logical_axes, model.abstract))
    params = tree.flatten(tiny.params(model, scale=0.05))
    leaves = {path: sharding.place(leaf, shardings[path]) for path, leaf in params.items()}
    state = init_state(leaves, OPTIMIZER, sharding.of_optimizer(OPTIMIZER, leaves, mesh))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 256, (1, 8, 33)).astype(np.int32)
    tokens, targets = ids[..., :-1], ids[..., 1:]
    weights = (rng.random(tokens.shape) < 0.5).astype(np.float32)
    positions = np.broadcast_to(np.arange(32, dtype=np.int32), tokens.shape)
    batch = Batch(tokens, targets, weights, positions, 1 + (positions > 9) + (positions > 15))
    step = make_step(next_token_loss(model, 4, mesh.shape["sequence"]), OPTIMIZER, average)
    return step, state, sharding.place_batch(batch, mesh, leading=1)


@functools.cache
def after_two_steps(*sizes, average="token"):
    """(loss at the second step, leaves, bytes of parameters and optimizer on the first device)."""
    step, state, batch = ready(mesh_of(*sizes), average)
    for _ in range(2):
        state, metrics = step(state, {}, batch, RATE)
    return float(metrics.nll / metrics.divisor), jax.device_get(state.leaves), bytes_on_first(state)


def bytes_on_first(state):
    """Bytes on the first device of a state's leaves and moments, norms left out, which every device holds whole."""
    named = jax.tree_util.tree_leaves_with_path((state.leaves, state.optimizer))
    cut = [leaf for path, leaf in named if leaf.ndim and "norm" not in jax.tree_util.keystr(path)]
    return sum(s.data.nbytes for x in cut for s in x.addressable_shards if s.device == jax.devices()[0])


SIZES_OF_MESHES = [
    ((1, 2, 1), "token"),
    ((1, 4, 1), "token"),
    ((1, 8, 1), "token"),
    ((2, 2, 2), "token"),
    ((1, 2, 1, 4), "token"),
    ((1, 1, 2, 4), "token"),
]


@pytest.mark.parametrize(("sizes", "average"), [*SIZES_OF_MESHES, ((1, 4, 1), "example"), ((2, 2, 2), "example")])
def test_devices_change_nothing_and_share_the_parameters_and_moments(sizes, average):
    loss, leaves, whole = after_two_steps(1, 1, 1, average=average)
    other_loss, others, part = after_two_steps(*sizes, average=average)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    for path, leaf in leaves.items():
        np.testing.assert_allclose(others[path], leaf, rtol=0, atol=1e-5 * np.abs(leaf).max(), err_msg=path)
    assert part * math.prod(sizes[1:]) == whole


def test_sharing_the_parameters_takes_no_more_temporary_memory_than_copying_them():
    """Without the constraint on token vectors, three times as much: every device would compute every row."""

    def temporary(*sizes):
        step, state, batch = ready(mesh_of(*sizes))
        return step.lower(state, {}, batch, RATE).compile().memory_analysis().temp_size_in_bytes

    assert temporary(1, 8, 1) <= temporary(8, 1, 1)


def test_rows_that_the_devices_do_not_divide_are_left_to_the_compiler():
    kept = jax.jit(sharding.Placement(lambda: mesh_of(1, 8, 1)).keep)(jnp.ones((3, 2)))
    np.testing.assert_array_equal(kept, np.ones((3, 2)))
