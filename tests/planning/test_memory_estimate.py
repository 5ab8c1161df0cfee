"""Bytes that a plan foresees against those that eight virtual devices hold and a compiled step allocates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from merit_jax.core import sharding, tree
from merit_jax.core.types import Batch
from merit_jax.planning.aot_compile import compile_step
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.fit import FitChecker
from merit_jax.planning.memory_estimate import Estimator
from merit_jax.training.loop import in_micro_batches
from merit_jax.training.step import init_state, make_step
from tests.support import small_plan

ROOM = 2**40
WIDE = {"hidden_size": 128, "mlp_size": 384, "vocab_size": 1024, "layers": 2}


def on_first_device(arrays) -> int:
    """Bytes that lie on one device."""
    return sum(
        shard.data.nbytes
        for array in jax.tree.leaves(arrays)
        for shard in array.addressable_shards
        if shard.device == jax.devices()[0]
    )


def run_of(execution: ExecutionConfig, task, model):
    """What a run of this execution has on its devices before a step, and its step."""
    mesh = sharding.make_mesh(*execution.mesh)
    shardings = sharding.of_params(mesh, model.logical_axes, model.abstract)
    params = jax.jit(model.init, out_shardings=shardings)(jax.random.key(0))
    leaves, frozen = tree.split(params, task.trainable)
    state = init_state(leaves, task.optimizer, sharding.of_optimizer(task.optimizer, leaves, mesh))
    tokens = np.ones((execution.batch_size, task.row.tokens.shape[0]), np.int32)
    batch = Batch(tokens, tokens, tokens.astype(np.float32), tokens, tokens, None)
    placed = sharding.place_batch(in_micro_batches(batch, execution.micro_batches), mesh, leading=1)
    step = make_step(task.loss(execution.remat, mesh), task.optimizer)
    return leaves, frozen, state, placed, step


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_bytes_held_between_steps_are_those_of_a_run(mesh):
    task, model = small_plan.task(trainable=("layers/",)), small_plan.model()
    execution = ExecutionConfig(*mesh, 16, 2, "none")
    leaves, frozen, state, placed, _ = run_of(execution, task, model)
    held = Estimator(task, small_plan.architecture(), small_plan.CHUNK).resident(execution)
    assert held.trainable == held.theta0 == on_first_device(leaves) == on_first_device(state.leaves)
    assert held.frozen == on_first_device(frozen)
    assert held.optimizer == on_first_device(state.optimizer)
    assert held.batch == on_first_device(placed)


def test_parameters_and_optimizer_fall_with_the_number_of_devices():
    estimator = Estimator(small_plan.task(), small_plan.architecture(), small_plan.CHUNK)
    sizes = [estimator.resident(ExecutionConfig(1, n, 1, 8, 1, "none")) for n in (1, 2, 4, 8)]
    for n, held in zip((1, 2, 4, 8), sizes, strict=True):
        assert (held.trainable + held.optimizer) * n == pytest.approx(sizes[0].trainable + sizes[0].optimizer, rel=0.02)


@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 8, 1)])
def test_the_plan_of_eight_virtual_devices_is_within_15_percent_of_what_a_run_allocates(mesh):
    """A run allocates the arrays it keeps, and what its own compiled step reserves for a call with these very arrays."""
    task, model, execution = small_plan.task(**WIDE), small_plan.model(**WIDE), ExecutionConfig(*mesh, 8, 1, "none")
    leaves, frozen, state, placed, step = run_of(execution, task, model)
    reserved = step.lower(state, frozen, placed, jnp.float32(0)).compile().memory_analysis().temp_size_in_bytes
    allocated = on_first_device((leaves, frozen, state, placed)) + reserved
    checker = FitChecker(Estimator(task, small_plan.architecture(**WIDE), small_plan.CHUNK), ROOM, tuple(jax.devices()))
    assert checker.check(execution).needed == pytest.approx(allocated, rel=0.15)


def test_the_estimate_without_a_compiler_is_near_the_compiled_step_where_parameters_are_copied():
    architecture = small_plan.architecture(**WIDE)
    estimator = Estimator(small_plan.task(**WIDE), architecture, small_plan.CHUNK)
    for remat in ("none", "full"):
        execution = ExecutionConfig(8, 1, 1, 16, 1, remat)
        compiled = compile_step(estimator.task, execution, jax.devices())
        assert sum(estimator.resident(execution)) - estimator.resident(execution).theta0 == pytest.approx(
            compiled.arguments, rel=0.01
        )
        assert estimator.step(execution).peak == pytest.approx(compiled.temporaries, rel=0.3)


def test_rematerialisation_stores_less_and_micro_batches_need_sums():
    estimator = Estimator(small_plan.task(length=40), small_plan.architecture(), small_plan.CHUNK)
    plain = estimator.step(ExecutionConfig(8, 1, 1, 16, 1, "none"))
    assert estimator.step(ExecutionConfig(8, 1, 1, 16, 1, "full")).saved < plain.saved / 2
    half = estimator.step(ExecutionConfig(8, 1, 1, 16, 2, "none"))
    assert (half.gradients, half.saved) == (2 * plain.gradients, pytest.approx(plain.saved / 2, rel=0.1))


def test_an_execution_that_does_not_fit_leads_to_the_nearest_that_does():
    estimator = Estimator(small_plan.task(), small_plan.architecture(), small_plan.CHUNK)
    configured = ExecutionConfig(8, 1, 1, 64, 1, "none")
    checker = FitChecker(estimator, FitChecker(estimator, ROOM).estimate(configured).needed - 1)
    assert not checker.estimate(configured).fits
    found = checker.nearest(configured)
    assert found is not None
    assert found.fits
    assert (found.execution.batch_size, found.execution.tensor, found.execution.remat) == (64, 1, "none")
    assert FitChecker(estimator, 1000).nearest(configured) is None
