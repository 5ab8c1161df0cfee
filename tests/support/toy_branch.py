"""A branch of seven steps on the linear toy mixture."""

import grain
import jax

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.core import sharding, tree
from merit_jax.training.loop import fine_tune
from merit_jax.training.optimizer import make_optimizer, make_schedule
from merit_jax.training.step import init_state, make_step
from tests.support import toy

STEPS = 7


class Loader:
    """Seven batches."""

    steps = STEPS
    supervised = [int(toy.random_batch(seed, rows=8).weights.sum()) for seed in range(STEPS)]  # noqa: RUF012
    read = [2 * tokens + seed for seed, tokens in enumerate(supervised)]  # noqa: RUF012

    def iterator(self):
        source = grain.MapDataset.source([toy.random_batch(seed, rows=8) for seed in range(STEPS)])
        return iter(source.to_iter_dataset())


TOKENS = sum(int(toy.random_batch(seed, rows=8).weights.sum()) for seed in range(STEPS))


class KilledError(Exception):
    """What ends a process in a test."""


def train(
    directory,
    die_at=None,
    inputs="a",
    every=2,
    log_every=2,
    stop_at=None,
    name="adamw",
    after=None,
    schedule="cosine",
    **more,
):
    """Trains the branch in a directory; `die_at` kills it before the step after so many, `after` changes what a step gives."""
    optimizer = make_optimizer(name)
    mesh = sharding.make_mesh()
    leaves, frozen = tree.split(toy.params(), ["kernel"])
    place = lambda leaf: sharding.place(leaf, jax.NamedSharding(mesh, jax.P()))  # noqa: E731
    leaves, frozen = jax.tree.map(place, (leaves, frozen))
    step = make_step(toy.loss, optimizer)

    def fragile(state, frozen, batch, rate):
        if die_at is not None and int(state.step) == die_at:
            raise KilledError
        result = step(state, frozen, batch, rate)
        return after(*result) if after else result

    state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh))
    options = {
        "theta0": leaves,
        "directory": directory,
        "mesh": mesh,
        "inputs": inputs,
        "checkpoint_every": every,
        "log_every": log_every,
        "stop": lambda index: index == stop_at,
    }
    return fine_tune(fragile, state, frozen, Loader(), make_schedule(schedule, 0.1, 0.0, STEPS), **options, **more)


def result(directory):
    """The kernel that a finished branch keeps."""
    return OrbaxLeaves(params_directory(directory / "checkpoints")).read("dense/kernel")
