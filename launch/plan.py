"""Plans a run before it is started: memory, time and cost. Reads a config.json, no weights.

merit plan --config=qwen2_5_vl_3b_vision_flan:merit3d --topology=v5e:8x8 --datasets=136 --price=1.2
merit plan --config=quickstart_text --topology=cpu:8 --json=plan.json
"""

import json
from collections.abc import Sequence

import jax
import jax.extend.backend
from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.console.plan_tables import print_plan
from merit_jax.launch.wiring.plan_inputs import PlanInputs
from merit_jax.launch.wiring.plan_run import MEMORY, plan_run
from merit_jax.planning.topology import Topology, parse_topology
from merit_jax.planning.workload import Rate
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import absolute

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("topology", None, "Devices of one slice: v5e:8x8, v5p:4x4x4, h100:8, cpu:8.", required=True)
    flags.DEFINE_float("price", None, "Dollars per chip and hour; left out: no costs are shown.", lower_bound=0)
    flags.DEFINE_float("utilisation", 0.4, "Share of the peak that model FLOPs reach.", lower_bound=1e-6, upper_bound=1)
    flags.DEFINE_float("peak_tflops", None, "Peak of one chip, in 10^12 FLOP/s; left out: its data sheet's.")
    flags.DEFINE_integer("steps", 0, "Steps of joint training, if the mixture is not at hand.", lower_bound=0)
    flags.DEFINE_integer("datasets", 0, "Number of datasets, if the mixture is not at hand.", lower_bound=0)
    flags.DEFINE_enum(
        "memory", "auto", MEMORY, "Compile the step for its memory (auto: for TPUs and CPUs), or estimate it."
    )
    flags.DEFINE_bool("search", True, "Search the nearest execution that fits if the config's does not.")
    flags.DEFINE_string("json", "", "File for the plan's figures; empty: none.")


def main(argv: Sequence[str]) -> None:
    """Plans, then prints."""
    topology = parse_topology(FLAGS.topology)
    use_cpu(topology)
    inputs = PlanInputs(app.config(), "float32" if topology.kind == "cpu" else "bfloat16", topology.platform)
    peak = topology.chip.peak if FLAGS.peak_tflops is None else 1e12 * FLAGS.peak_tflops
    plan = plan_run(
        inputs,
        topology,
        memory=FLAGS.memory,
        rate=Rate(topology.chips, peak, FLAGS.utilisation, FLAGS.price),
        data=inputs.data(FLAGS.steps, FLAGS.datasets),
        search=FLAGS.search,
    )
    if FLAGS.json:
        write_text(absolute(FLAGS.json), json.dumps(plan.to_dict(), indent=2) + "\n")
    print_plan(plan)


def use_cpu(topology: Topology) -> None:
    """Selects the CPU, for plans need no accelerator; a plan for CPUs gets as many virtual ones."""
    count = topology.chips if topology.kind == "cpu" else 1
    if jax.default_backend() != "cpu" or (topology.kind == "cpu" and jax.device_count() != count):
        jax.extend.backend.clear_backends()
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)


if __name__ == "__main__":
    app.start(main, define_flags)
