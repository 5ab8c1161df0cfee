"""The states of optimizers that a plan compares are those that training holds."""

import jax
import pytest

from merit_jax.core import sharding, tree
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.optimizer_memory import COMPARED, optimizer_memory
from merit_jax.training.optimizer import known_optimizers, make_optimizer
from merit_jax.training.step import init_state
from tests.support import small_plan

EXECUTION = ExecutionConfig(1, 8, 1, 8, 1, "none")


def test_the_bytes_of_each_are_those_of_its_state_on_a_device():
    task, model = small_plan.task(trainable=("layers/",)), small_plan.model()
    mesh = sharding.make_mesh(*EXECUTION.mesh)
    params = jax.jit(model.init, out_shardings=sharding.of_params(mesh, model.logical_axes, model.abstract))(
        jax.random.key(0)
    )
    leaves, _ = tree.split(params, task.trainable)
    for found in optimizer_memory(task, EXECUTION, "adamw"):
        optimizer = task.optimizer if found.name == "adamw" else make_optimizer(found.name)
        state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh)).optimizer
        arrays = jax.tree.leaves(state)
        first = [s for array in arrays for s in array.addressable_shards if s.device == jax.devices()[0]]
        assert found.state == sum(shard.data.nbytes for shard in first), found.name
        whole = sum(array.nbytes for array in arrays)
        assert found.per_parameter == pytest.approx(whole / sum(leaf.size for leaf in leaves.values()))


def test_each_costs_what_it_is_known_for():
    """Two moments of 4 bytes for AdamW, one for Lion and SGD with momentum, less for Adafactor; Schedule-Free keeps z."""
    found = {one.name: one.per_parameter for one in optimizer_memory(small_plan.task(), EXECUTION, "adamw")}
    assert found["adamw"] == pytest.approx(8, rel=1e-3)
    assert found["lion"] == pytest.approx(4, rel=1e-3)
    assert found["sgd"] == pytest.approx(4, rel=1e-3)
    assert found["schedule_free_adamw"] == pytest.approx(8, rel=1e-3)
    assert found["schedule_free_sgd"] == pytest.approx(4, rel=1e-3)
    assert found["adafactor"] < found["muon"] < found["adamw"]


def test_the_configured_one_is_first_and_once():
    assert optimizer_memory(small_plan.task(), EXECUTION, "muon")[0].name == "muon"
    assert len(optimizer_memory(small_plan.task(), EXECUTION, "muon")) == len(COMPARED)
    assert set(COMPARED) <= known_optimizers().keys()
