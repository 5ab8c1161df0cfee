"""Plans a config on a topology: memory, time, cost and traffic, from shapes alone."""

import logging

import jax

from merit_jax.core import sharding
from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.planning.aot_compile import devices_of
from merit_jax.planning.communication import Traffic, between_slices, within_slice
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.fit import FitChecker, FitReport, capacity
from merit_jax.planning.memory_estimate import Estimator, StepBytes
from merit_jax.planning.optimizer_memory import optimizer_memory
from merit_jax.planning.run_plan import RunPlan
from merit_jax.planning.topology import Topology
from merit_jax.planning.workload import DataSize, Rate, Workload, stage_costs, trained_bytes

MEMORY = ("auto", "compiled", "analytic")
"""Ways to find the memory of a step; auto compiles it for TPUs and CPUs."""

log = logging.getLogger("merit_jax")


def plan_run(
    inputs: PlanInputs, topology: Topology, *, memory: str, rate: Rate, data: DataSize, search: bool
) -> RunPlan:
    """Returns the plan of a config on a topology.

    Args:
        inputs: The config.
        topology: One slice.
        memory: One of `MEMORY`.
        rate: Speed and price of the slice.
        data: Size of the data.
        search: Whether to search the nearest execution that fits if the config's does not.

    Raises:
        ValueError: The mesh does not cover the topology, or there is no compiler for it.
    """
    execution, room, work = configured_execution(inputs, topology), capacity(topology), inputs.workload()
    compiles = memory == "compiled" or (memory == "auto" and (topology.kind == "cpu" or bool(topology.chip.compiler)))
    devices = tuple(devices_of(topology)) if compiles else ()
    task = inputs.task(data.datasets)
    checker = FitChecker(Estimator(task, inputs.architecture(), inputs.config.loss.chunk), room, devices)
    configured, nearest = checker.check(execution), None
    if search and not configured.fits:
        nearest = checker.nearest(execution, lambda found: log.info("compiling %s", found))
    chosen = (nearest or configured).execution
    return RunPlan(
        inputs.where,
        topology,
        data,
        work,
        stage_costs(work, data),
        rate,
        configured,
        nearest,
        _gradient_stage(inputs, chosen, room),
        _traffic_within_slice(work, chosen),
        between_slices(trained_bytes(work), work.branches, data.steps),
        optimizer_memory(task, chosen, inputs.config.train.optimizer),
    )


def configured_execution(inputs: PlanInputs, topology: Topology) -> ExecutionConfig:
    """Returns the execution of the config.

    Raises:
        ValueError: Its mesh does not cover the topology.
    """
    train = inputs.config.train
    try:
        sizes = sharding.mesh_sizes(topology.chips, **inputs.config.mesh)
    except ValueError as error:
        raise ValueError(f"{topology}: {error}") from None
    return ExecutionConfig(*sizes[:3], train.batch_size, train.micro_batches, inputs.config.model.remat, sizes[3])


def _gradient_stage(inputs: PlanInputs, chosen: ExecutionConfig, room: int) -> FitReport:
    """Estimates the gradient stage: sums and gradients of the datasets in one step (at least one), no optimizer."""
    cfg = inputs.config.gradients
    execution = chosen._replace(batch_size=cfg.batch_size, micro_batches=1)
    estimator = Estimator(inputs.calibration_task(), inputs.architecture(), inputs.config.loss.chunk)
    report = FitChecker(estimator, room).estimate(execution)
    step = report.step
    if step is not None:
        step = StepBytes(
            *(max(cfg.datasets_per_step, 1) * part for part in (2 * step.gradients, step.saved, step.working, 0))
        )
    return report._replace(resident=report.resident._replace(optimizer=0, theta0=0, best=0), step=step)


def _traffic_within_slice(work: Workload, execution: ExecutionConfig) -> Traffic:
    numbers = sum(leaf.size for leaf in jax.tree.leaves(work.architecture.abstract))
    return within_slice(
        trainable=trained_bytes(work),
        whole=4 * numbers,
        data=execution.data,
        fsdp=execution.fsdp * execution.sequence,
        tensor=execution.tensor,
        micro_batches=execution.micro_batches,
        recomputed=execution.remat == "full",
    )
