"""Holds a plan of a run, as tables and JSON show it."""

from typing import Any, NamedTuple

from merit_jax.planning.communication import BetweenSlices, Traffic
from merit_jax.planning.fit import FitReport
from merit_jax.planning.optimizer_memory import OptimizerMemory
from merit_jax.planning.topology import Topology
from merit_jax.planning.workload import DataSize, Rate, StageCost, Workload, branch_steps


class RunPlan(NamedTuple):
    """Everything that a plan found.

    Attributes:
        where: The file that the model was read from.
        topology: One slice.
        data: Size of the data.
        work: Work of the run on it.
        stages: Cost of each stage.
        rate: Speed and price.
        configured: Memory of the config's execution.
        nearest: Memory of the nearest execution that fits; None if the config's does, or none was found.
        calibration: Memory of the gradient stage, in the execution that fits (else the config's).
        within: Traffic in a slice, in that execution.
        between: Traffic between slices.
        optimizers: Memory of the optimizers' states, the configured one first, in that execution.
    """

    where: str
    topology: Topology
    data: DataSize
    work: Workload
    stages: tuple[StageCost, ...]
    rate: Rate
    configured: FitReport
    nearest: FitReport | None
    calibration: FitReport
    within: Traffic
    between: BetweenSlices
    optimizers: tuple[OptimizerMemory, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; sizes in bytes, times in seconds."""
        rate = self.rate
        stages = {
            stage.name: {
                **stage._asdict(),
                "seconds": rate.seconds(stage.flops),
                "dollars": rate.dollars(stage.flops),
            }
            for stage in self.stages
        }
        return {
            "topology": str(self.topology),
            "model": self.where,
            "data": self.data._asdict(),
            "branch_steps": branch_steps(self.work, self.data),
            "rate": rate._asdict(),
            "asked": _report(self.configured),
            "gradients": _report(self.calibration),
            "nearest": None if self.nearest is None else _report(self.nearest),
            "optimizers": {one.name: one._asdict() for one in self.optimizers},
            "stages": stages,
            "traffic": {"within_slice": self.within._asdict(), "between_slices": self.between._asdict()},
        }


def _report(report: FitReport) -> dict[str, Any]:
    parts = {
        "setting": report.execution,
        "held": report.resident,
        "passing": report.step,
        "compiled": report.compiled,
    }
    return {
        **{name: None if part is None else part._asdict() for name, part in parts.items()},
        "obstacle": report.obstacle,
        "needed": report.needed,
        "capacity": report.capacity,
        "fits": report.fits,
    }
