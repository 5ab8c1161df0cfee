"""Whether a setting fits into a chip, by estimate or by compiling, and which is the nearest that does."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from merit_jax.planning.aot_compile import Compiled, compile_step
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.memory_estimate import Estimator, ResidentBytes, StepBytes
from merit_jax.planning.search import execution_configs
from merit_jax.planning.topology import Topology

MOST_COMPILED = 4
"""Settings that a search compiles before it gives up: each takes minutes."""


class FitReport(NamedTuple):
    """What one device needs for a training step, in bytes.

    Attributes:
        setting: How the step is laid out.
        held: Between two steps; exact.
        passing: Besides, in a step; estimated.
        compiled: What the compiler planned; None where it was not asked.
        capacity: Memory of the device.
        obstacle: Why the step cannot be laid out so; None if it can.
    """

    setting: ExecutionConfig
    held: ResidentBytes
    passing: StepBytes | None
    compiled: Compiled | None
    capacity: int
    obstacle: str | None = None

    @property
    def temporaries(self) -> int:
        """Bytes besides those held: the compiler's figure if there is one."""
        if self.compiled is not None and self.compiled.fits:
            return self.compiled.temporaries + self.compiled.code
        return 0 if self.passing is None else self.passing.peak

    @property
    def needed(self) -> int:
        """Bytes in all; a compiled step's arguments with their padding, and theta0 beside them."""
        if self.compiled is not None and self.compiled.fits:
            return self.compiled.arguments + self.held.theta0 + self.temporaries
        return sum(self.held) + self.temporaries

    @property
    def fits(self) -> bool:
        """Whether the step can be laid out so and has room."""
        refused = self.compiled is not None and not self.compiled.fits
        return self.obstacle is None and not refused and self.needed <= self.capacity


@dataclasses.dataclass(frozen=True)
class FitChecker:
    """Judges settings of one task on one topology.

    Attributes:
        estimator: Estimates the memory of a setting.
        capacity: Bytes of one device.
        devices: Devices to compile for; empty: estimates alone.
    """

    estimator: Estimator
    capacity: int
    devices: Sequence[Any] = ()

    def estimate(self, setting: ExecutionConfig) -> FitReport:
        """By shapes alone."""
        obstacle = setting.obstacle()
        passing = self.estimator.passing(setting) if obstacle is None else None
        return FitReport(setting, self.estimator.held(setting), passing, None, self.capacity, obstacle)

    def judge(self, setting: ExecutionConfig) -> FitReport:
        """By compiling, where there is a compiler."""
        estimate = self.estimate(setting)
        if estimate.obstacle is not None or not self.devices:
            return estimate
        return estimate._replace(compiled=compile_step(self.estimator.task, setting, list(self.devices)))

    def nearest(
        self, asked: ExecutionConfig, tell: Callable[[ExecutionConfig], None] = lambda setting: None
    ) -> FitReport | None:
        """The first of `search.candidates` that fits: estimated to fit, and then judged to; None if there is none.

        Args:
            asked: The setting that does not fit.
            tell: Called with every setting before it is compiled.
        """
        compiled = 0
        for setting in execution_configs(
            asked, self.estimator.architecture.decoder.heads, self.estimator.task.policies
        ):
            if setting == asked or not self.estimate(setting).fits:
                continue
            if not self.devices:
                return self.estimate(setting)
            if compiled == MOST_COMPILED:
                return None
            tell(setting)
            compiled += 1
            if (verdict := self.judge(setting)).fits:
                return verdict
        return None


def capacity(topology: Topology) -> int:
    """Bytes of memory of one device; virtual CPU devices share the host's."""
    if topology.chip.memory is not None:
        return topology.chip.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // topology.count
