"""Compiles a run's training step ahead of time, for devices that need not be present, and reads the memory it needs."""

import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from merit_jax.core import sharding
from merit_jax.planning.execution import ExecutionConfig, TrainingTask, abstract_batch, abstract_leaves, abstract_state
from merit_jax.planning.topology import Topology
from merit_jax.training.step import make_step


class CompiledMemory(NamedTuple):
    """The memory of one device as a compiler has planned it.

    Attributes:
        arguments: Bytes of parameters, optimizer state and batch, padding included.
        temporaries: Bytes of everything else at the peak: gradients, activations, gathered parameters.
        code: Bytes of the program.
        fits: Whether all of it fits.
        seconds: Time of the compilation.
        message: The compiler's error if it does not fit.
    """

    arguments: int
    temporaries: int
    code: int
    fits: bool
    seconds: float
    message: str = ""


def devices_of(topology: Topology) -> list[Any]:
    """Returns devices to compile for: this host's for a CPU, descriptions of them for TPUs.

    Raises:
        ValueError: There is no compiler for them here, or it does not know such a slice.
    """
    if topology.kind == "cpu":
        if jax.default_backend() != "cpu" or jax.device_count() != topology.chips:
            raise ValueError(
                f"{topology}: this process has {jax.device_count()} {jax.default_backend()} devices; set "
                f"JAX_PLATFORMS=cpu and XLA_FLAGS=--xla_force_host_platform_device_count={topology.chips}"
            )
        return jax.devices()
    if not topology.chip.compiler:
        raise ValueError(f"{topology}: there is no compiler for it without such a device; use --memory=analytic")
    _set_tpu_environment(topology)
    bounds = [min(size, 2) for size in topology.shape] + [1] * (3 - len(topology.shape))
    name = f"{topology.chip.compiler}:{'x'.join(map(str, topology.shape))}"
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, chips_per_host_bounds=[*bounds[:2], 1])
    except Exception as error:
        raise ValueError(
            f"{topology}: no TPU compiler for it ({str(error).splitlines()[0]}); pip install 'merit-jax[tpu]' (no TPU is "
            "needed), or use --memory=analytic"
        ) from None
    return list(found.devices)


def _set_tpu_environment(topology: Topology) -> None:
    """Sets the variables that name the slice to libtpu, so that it queries no metadata server."""
    chip = topology.chip
    for key, value in {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": f"{chip.accelerator}-{topology.chips * chip.cores}",
    }.items():
        os.environ.setdefault(key, value)


def compile_step(task: TrainingTask, execution: ExecutionConfig, devices: list[Any]) -> CompiledMemory:
    """Compiles the training step for devices and returns the memory it needs.

    Args:
        task: The model and its training.
        execution: Sharding of the step; `execution.obstacle()` is None.
        devices: As many as its mesh has.
    """
    mesh = sharding.make_mesh(*execution.mesh, devices=devices)
    lowered = lower_step(task, execution, mesh)
    began = time.monotonic()
    try:
        found = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return CompiledMemory(0, 0, 0, False, time.monotonic() - began, str(error))
    if found is None:
        raise ValueError(
            f"the compiler of {devices[0].platform} devices does not report its memory; use --memory=analytic"
        )
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    return CompiledMemory(
        found.argument_size_in_bytes,
        found.temp_size_in_bytes + outputs,
        found.generated_code_size_in_bytes,
        True,
        time.monotonic() - began,
    )


def lower_step(task: TrainingTask, execution: ExecutionConfig, mesh: Mesh) -> jax.stages.Lowered:
    """Traces the training step of a run with shapes in place of arrays."""
    leaves, frozen = abstract_leaves(task, mesh)
    rate = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec()))
    step: Any = make_step(task.loss(execution.remat, mesh), task.optimizer, task.average, task.datasets)
    return step.lower(abstract_state(task, leaves, mesh), frozen, abstract_batch(task, execution, mesh), rate)
