"""The training step of a config on this machine's devices, beside what merit plan says of it: speed, utilisation, memory.

    python -m benchmarks.throughput --config=configs/qwen2_5_3b_flan.py:merit2d --config.model.path=Qwen2.5-3B --topology=h100:1

Parameters are random and rows are full, so neither weights nor data are needed; everything else is the run's own: model, loss,
optimizer, shardings, rematerialisation. As in a run, theta0's trainable parameters are kept beside the state. Prints a table.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import processes
from merit_jax.core import sharding, tree
from merit_jax.core.types import Batch
from merit_jax.launch.console import app
from merit_jax.launch.plan import use_cpu
from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.launch.wiring.plan_run import configured_execution
from merit_jax.planning.execution import ExecutionConfig, TrainingTask
from merit_jax.planning.flops import row_flops
from merit_jax.planning.memory_estimate import Estimator
from merit_jax.planning.topology import Topology, parse_topology
from merit_jax.training.loop import in_micro_batches
from merit_jax.training.step import init_state, make_step

FLAGS = flags.FLAGS
GIB = 2**30


class Measured(NamedTuple):
    """What the devices did.

    Attributes:
        first: Seconds of the first step, compilation included.
        seconds: Seconds of a later step (median).
        reserved: Bytes that the compiled step reserves on a device besides its arguments.
        peak: Largest number of bytes in use on a device; on CPUs the process's growth in resident memory, divided among them.
    """

    first: float
    seconds: float
    reserved: int
    peak: int


def random_leaves(task: TrainingTask, mesh: Any) -> dict[str, jax.Array]:
    """Normal numbers in the places of all parameters, made where they lie."""
    flat = tree.flatten(task.abstract)
    where = tree.flatten(sharding.of_params(mesh, task.logical_axes, task.abstract))

    def one(key: jax.Array, path: str) -> jax.Array:
        make = jax.jit(
            lambda k: 0.02 * jax.random.normal(k, flat[path].shape, flat[path].dtype), out_shardings=where[path]
        )
        return make(key)

    keys = jax.random.split(jax.random.key(0), len(flat))
    return {path: one(key, path) for key, path in zip(keys, flat, strict=True)}


def full_batch(task: TrainingTask, rows: int) -> Batch:
    """Rows of one long example each, every position supervised."""
    length = task.row.tokens.shape[0]
    tokens = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    images = jax.tree.map(lambda x: np.zeros((rows, *x.shape), x.dtype), task.row.images)
    return Batch(tokens, tokens, np.ones(tokens.shape, np.float32), positions, tokens, images)


def measure(task: TrainingTask, execution: ExecutionConfig, repeats: int) -> Measured:
    """Takes steps."""
    mesh, before = sharding.make_mesh(*execution.mesh), peak_bytes()
    leaves, frozen = tree.split(tree.unflatten(random_leaves(task, mesh)), task.trainable)
    state = init_state(leaves, task.optimizer, sharding.of_optimizer(task.optimizer, leaves, mesh))
    host = in_micro_batches(full_batch(task, execution.batch_size), execution.micro_batches)
    batch = sharding.place_batch(host, mesh, leading=1)
    step = make_step(task.loss(execution.remat, mesh), task.optimizer)
    began = time.perf_counter()
    compiled = step.lower(state, frozen, batch, jnp.float32(1e-5)).compile()
    seconds = []
    for _ in range(repeats + 1):
        state, _ = jax.block_until_ready(compiled(state, frozen, batch, jnp.float32(1e-5)))
        seconds.append(time.perf_counter())
    took = np.diff([began, *seconds])
    reserved = compiled.memory_analysis().temp_size_in_bytes
    return Measured(float(took[0]), statistics.median(took[1:]), reserved, peak_bytes() - before)


def peak_bytes() -> int:
    """Of a device; of the process for each device where the backend does not tell."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is not None:
        return stats["peak_bytes_in_use"]
    return processes.peak_bytes() // jax.local_device_count()


def report(plan: PlanInputs, topology: Topology, execution: ExecutionConfig, found: Measured) -> None:
    """The table."""
    job = plan.workload()
    flops = execution.batch_size * row_flops(job.architecture, job.row, job.trainable)
    tokens = execution.batch_size * job.row.length
    estimator = Estimator(plan.task(), job.architecture, plan.config.loss.chunk)
    held, passing = estimator.resident(execution), estimator.step(execution)
    rows = {
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(job.architecture.abstract)):,}",
        "tokens of a step": f"{tokens:,}",
        "first step, compilation included": f"{found.first:.1f} s",
        "step": f"{found.seconds * 1e3:,.0f} ms",
        "tokens per second": f"{tokens / found.seconds:,.0f}",
        "model FLOP/s of a device": f"{flops / found.seconds / topology.chips:.3g}",
    }
    if topology.chip.peak:
        rows["of its bfloat16 peak"] = f"{flops / found.seconds / topology.chips / topology.chip.peak:.1%}"
    rows["largest memory in use on a device"] = f"{found.peak / GIB:.3g} GiB"
    rows["foreseen by merit plan --memory=analytic"] = f"{(sum(held) + passing.peak) / GIB:.3g} GiB"
    rows["foreseen by merit plan --memory=compiled"] = f"{(sum(held) + found.reserved) / GIB:.3g} GiB"
    rows["temporaries that the compiled step reserves"] = f"{found.reserved / GIB:.2f} GiB"
    rows["temporaries foreseen"] = f"{passing.peak / GIB:.2f} GiB"
    print(f"{plan.where} on {topology}, {execution}\n\n| | |\n|---|---:|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


def define_flags() -> None:
    """What the command can be told."""
    app.define_config()
    flags.DEFINE_string("topology", None, "This machine's devices: h100:1, v5e:2x2, cpu:2.", required=True)
    flags.DEFINE_integer("repeats", 5, "Steps that are timed.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Measures and prints."""
    topology = parse_topology(FLAGS.topology)
    if topology.kind == "cpu":
        use_cpu(topology)
    plan = PlanInputs(app.config(), "float32" if topology.kind == "cpu" else "bfloat16", topology.platform)
    execution = configured_execution(plan, topology)
    report(plan, topology, execution, measure(plan.task(), execution, FLAGS.repeats))


if __name__ == "__main__":
    app.start(main, define_flags)
