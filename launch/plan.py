"""Plans a run before it is begun: does it fit, how long does it take, what does it cost. Reads a config.json, no weights.

python -m launch.plan --config=configs/qwen2_5_vl_3b_vision_flan.py:merit3d --topology=v5e:8x8 --datasets=136 --price=1.2
python -m launch.plan --config=configs/quickstart_text.py --topology=cpu:8 --json=plan.json
"""

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.backend
from absl import flags

from launch.console import app
from launch.console.plan_tables import print_plan
from launch.wiring.plan_inputs import PlanInputs
from merit_jax.core import sharding
from merit_jax.planning.aot_compile import devices_of
from merit_jax.planning.communication import BetweenSlices, Traffic, between_slices, within_slice
from merit_jax.planning.execution import ExecutionConfig
from merit_jax.planning.fit import FitChecker, FitReport, capacity
from merit_jax.planning.memory_estimate import Estimator, StepBytes
from merit_jax.planning.topology import Topology, parse_topology
from merit_jax.planning.workload import Data, Job, Rate, Stage, branch_steps, stages, trained_bytes
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import absolute

FLAGS = flags.FLAGS
MEMORY = ("auto", "compiled", "analytic")

log = logging.getLogger("merit_jax")


def define_flags() -> None:
    """What the command can be told."""
    app.define_config()
    flags.DEFINE_string("topology", None, "Devices of one slice: v5e:8x8, v5p:4x4x4, h100:8, cpu:8.", required=True)
    flags.DEFINE_float("price", None, "Dollars per chip and hour; without it no cost is told.", lower_bound=0)
    flags.DEFINE_float("utilisation", 0.4, "Share of the peak that model FLOPs reach.", lower_bound=1e-6, upper_bound=1)
    flags.DEFINE_float("peak_tflops", None, "Peak of one chip, in 10^12 FLOP/s; by default its data sheet's.")
    flags.DEFINE_integer("steps", 0, "Steps of joint training, where the mixture is not here.", lower_bound=0)
    flags.DEFINE_integer("datasets", 0, "Number of datasets, where the mixture is not here.", lower_bound=0)
    flags.DEFINE_enum(
        "memory", "auto", MEMORY, "Compile the step for its memory (auto: TPUs and CPUs), or estimate it."
    )
    flags.DEFINE_bool("search", True, "Look for the nearest setting that fits where the config's does not.")
    flags.DEFINE_string("json", "", "File for the plan's figures.")


class Result(NamedTuple):
    """All that a plan says.

    Attributes:
        where: The file that the model was read from.
        topology: One slice.
        data: What the stages work on.
        job: What they do.
        stages: What each needs.
        rate: How fast.
        asked: The verdict on the config's setting.
        nearest: The verdict on the nearest that fits; None if the config's does, or none was found.
        calibration: The verdict on the gradient stage, in the setting that fits (or was asked for).
        within: Traffic in a slice, in that setting.
        between: Traffic between slices.
    """

    where: str
    topology: Topology
    data: Data
    job: Job
    stages: tuple[Stage, ...]
    rate: Rate
    asked: FitReport
    nearest: FitReport | None
    calibration: FitReport
    within: Traffic
    between: BetweenSlices

    def to_dict(self) -> dict[str, Any]:
        """JSON values; sizes in bytes, times in seconds."""
        rows = {
            stage.name: {
                **stage._asdict(),
                "seconds": self.rate.seconds(stage.flops),
                "dollars": self.rate.dollars(stage.flops),
            }
            for stage in self.stages
        }
        return {
            "topology": str(self.topology),
            "model": self.where,
            "data": self.data._asdict(),
            "branch_steps": branch_steps(self.job, self.data),
            "rate": self.rate._asdict(),
            "asked": _verdict(self.asked),
            "gradients": _verdict(self.calibration),
            "nearest": None if self.nearest is None else _verdict(self.nearest),
            "stages": rows,
            "traffic": {"within_slice": self.within._asdict(), "between_slices": self.between._asdict()},
        }


def make(plan: PlanInputs, topology: Topology, *, memory: str, rate: Rate, data: Data, search: bool) -> Result:
    """The plan of a config on a topology.

    Raises:
        ValueError: The mesh does not cover the topology, or there is no compiler for it.
    """
    setting, room, job = setting_of(plan, topology), capacity(topology), plan.job()
    compiles = memory == "compiled" or (memory == "auto" and (topology.kind == "cpu" or bool(topology.chip.compiler)))
    devices = tuple(devices_of(topology)) if compiles else ()
    judge = FitChecker(Estimator(plan.task(), plan.architecture(), plan.config.loss.chunk), room, devices)
    asked, nearest = judge.judge(setting), None
    if search and not asked.fits:
        nearest = judge.nearest(setting, lambda found: log.info("compiling %s", found))
    chosen = (nearest or asked).setting
    return Result(
        plan.where,
        topology,
        data,
        job,
        stages(job, data),
        rate,
        asked,
        nearest,
        gradient_stage(plan, chosen, room),
        traffic_of(job, chosen),
        between_slices(trained_bytes(job), job.branches, data.steps),
    )


def gradient_stage(plan: PlanInputs, chosen: ExecutionConfig, room: int) -> FitReport:
    """The estimate for the gradient stage: sums and gradients of `vmap` datasets (of one where that is 0), no optimizer."""
    cfg, architecture = plan.config.gradients, plan.architecture()
    setting = chosen._replace(batch_size=cfg.batch_size, micro_batches=1)
    verdict = FitChecker(Estimator(plan.calibration_task(), architecture, plan.config.loss.chunk), room).estimate(
        setting
    )
    held = verdict.held._replace(optimizer=0, theta0=0)
    passing = verdict.passing
    if passing is not None:
        several = (max(cfg.vmap, 1) * part for part in (2 * passing.gradients, passing.saved, passing.working, 0))
        passing = StepBytes(*several)
    return verdict._replace(held=held, passing=passing)


def traffic_of(job: Job, setting: ExecutionConfig) -> Traffic:
    """What one device sends in a step."""
    numbers = sum(leaf.size for leaf in jax.tree.leaves(job.architecture.abstract))
    return within_slice(
        trainable=trained_bytes(job),
        whole=4 * numbers,
        data=setting.data,
        fsdp=setting.fsdp,
        tensor=setting.tensor,
        micro_batches=setting.micro_batches,
        recomputed=setting.remat == "full",
    )


def setting_of(plan: PlanInputs, topology: Topology) -> ExecutionConfig:
    """The setting that the config asks for.

    Raises:
        ValueError: Its mesh does not cover the topology.
    """
    train = plan.config.train
    try:
        sizes = sharding.mesh_sizes(topology.count, **plan.config.mesh)
    except ValueError as error:
        raise ValueError(f"{topology}: {error}") from None
    return ExecutionConfig(*sizes, train.batch_size, train.micro_batches, plan.config.model.remat)


def _verdict(verdict: FitReport) -> dict[str, Any]:
    parts = {name: getattr(verdict, name) for name in ("setting", "held", "passing", "compiled")}
    return {
        **{name: None if part is None else part._asdict() for name, part in parts.items()},
        "obstacle": verdict.obstacle,
        "needed": verdict.needed,
        "capacity": verdict.capacity,
        "fits": verdict.fits,
    }


def use_cpu(topology: Topology) -> None:
    """Plans need no accelerator; a plan for CPUs has as many virtual ones."""
    count = topology.count if topology.kind == "cpu" else 1
    if jax.default_backend() != "cpu" or (topology.kind == "cpu" and jax.device_count() != count):
        jax.extend.backend.clear_backends()
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)


def main(argv: Sequence[str]) -> None:
    """Plans, then prints."""
    topology = parse_topology(FLAGS.topology)
    use_cpu(topology)
    plan = PlanInputs(app.config(), "float32" if topology.kind == "cpu" else "bfloat16")
    peak = topology.chip.peak if FLAGS.peak_tflops is None else 1e12 * FLAGS.peak_tflops
    result = make(
        plan,
        topology,
        memory=FLAGS.memory,
        rate=Rate(topology.count, peak, FLAGS.utilisation, FLAGS.price),
        data=plan.data(FLAGS.steps, FLAGS.datasets),
        search=FLAGS.search,
    )
    if FLAGS.json:
        write_text(absolute(FLAGS.json), json.dumps(result.to_dict(), indent=2) + "\n")
    print_plan(result)


if __name__ == "__main__":
    app.start(main, define_flags)
