"""Checks by estimate or by compiling whether an execution fits into a chip, and finds the nearest one that does."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from merit_jax.planning.aot_compile import CompiledMemory, compile_step
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.memory_estimate import Estimator, ResidentBytes, StepBytes
from merit_jax.planning.search import execution_configs
from merit_jax.planning.topology import Topology

MOST_COMPILED = 4
"""Executions that a search compiles before it gives up: each takes minutes."""


class FitReport(NamedTuple):
    """Memory of one device for a training step, in bytes.

    Attributes:
        execution: Sharding of the step.
        resident: Between two steps; exact.
        step: In addition, during a step; estimated. None if the step cannot be sharded so.
        compiled: As the compiler planned it; None where nothing was compiled.
        capacity: Memory of the device.
        obstacle: Reason why the step cannot be sharded so; None if it can.
    """

    execution: ExecutionConfig
    resident: ResidentBytes
    step: StepBytes | None
    compiled: CompiledMemory | None
    capacity: int
    obstacle: str | None = None

    @property
    def temporaries(self) -> int:
        """Bytes in addition to the resident ones: the compiler's figure if there is one."""
        if self.compiled is not None and self.compiled.fits:
            return self.compiled.temporaries + self.compiled.code
        return 0 if self.step is None else self.step.peak

    @property
    def needed(self) -> int:
        """Bytes in all; of a compiled step its arguments with their padding, theta0 and the best state."""
        if self.compiled is not None and self.compiled.fits:
            return self.compiled.arguments + self.resident.theta0 + self.resident.best + self.temporaries
        return sum(self.resident) + self.temporaries

    @property
    def fits(self) -> bool:
        """True if the step can be sharded so and fits."""
        refused = self.compiled is not None and not self.compiled.fits
        return self.obstacle is None and not refused and self.needed <= self.capacity


@dataclasses.dataclass(frozen=True)
class FitChecker:
    """Checks executions of one task on one topology.

    Attributes:
        estimator: Estimates the memory of an execution.
        capacity: Bytes of one device.
        devices: Devices to compile for; empty: nothing is compiled.
    """

    estimator: Estimator
    capacity: int
    devices: Sequence[Any] = ()

    def estimate(self, execution: ExecutionConfig) -> FitReport:
        """Returns the report from shapes alone."""
        obstacle = execution.obstacle()
        step = self.estimator.step(execution) if obstacle is None else None
        return FitReport(execution, self.estimator.resident(execution), step, None, self.capacity, obstacle)

    def check(self, execution: ExecutionConfig) -> FitReport:
        """Returns the report from compiling, where there is a compiler."""
        estimate = self.estimate(execution)
        if estimate.obstacle is not None or not self.devices:
            return estimate
        return estimate._replace(compiled=compile_step(self.estimator.task, execution, list(self.devices)))

    def nearest(
        self, configured: ExecutionConfig, announce: Callable[[ExecutionConfig], None] = lambda execution: None
    ) -> FitReport | None:
        """Returns the first of `search.execution_configs` that is estimated and then checked to fit; None if there is none.

        Args:
            configured: The execution that does not fit.
            announce: Called with every execution before it is compiled.
        """
        compiled = 0
        heads, policies = self.estimator.architecture.decoder.heads, self.estimator.task.policies
        for execution in execution_configs(configured, heads, policies):
            if execution == configured or not self.estimate(execution).fits:
                continue
            if not self.devices:
                return self.estimate(execution)
            if compiled == MOST_COMPILED:
                return None
            announce(execution)
            compiled += 1
            if (report := self.check(execution)).fits:
                return report
        return None


def capacity(topology: Topology) -> int:
    """Returns the bytes of memory of one device; virtual CPU devices share the host's."""
    if topology.chip.memory is not None:
        return topology.chip.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // topology.chips
