"""Advises, before training, whether to train jointly or apart, and how: measures the mixture at theta0 and forecasts each way.

merit advise --config=quickstart --workdir=runs/quickstart
merit advise --config=quickstart --workdir=runs/quickstart --map=runs/map/map.json --pilot=0.05
merit advise --config=smollm2_bigbench --workdir=DIR --branches=4,8 --topology=h100:8 --nocluster

Gradients, similarities and calibration that the workdir has are reused, and a later merit run reuses what is made here.
docs/guides/advice.md explains the page.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from merit_jax.advice.map_forecast import MapForecast, read_map, shipped
from merit_jax.launch.advising.advise import Question, advise
from merit_jax.launch.advising.candidates import default_methods
from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_text
from merit_jax.launch.experiments.runner import parse_methods
from merit_jax.launch.wiring import basin, open_run
from merit_jax.planning.topology import parse_topology
from merit_jax.workdir.paths import absolute

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_list("branches", [], "Numbers of branches to compare; empty: partition.groups of the config.")
    flags.DEFINE_string(
        "methods",
        "",
        "Methods to compare, written as in config.baselines; empty: slices, random split and MERIT, with cores.",
    )
    flags.DEFINE_string(
        "map", "", "map.json of benchmarks.study_map, or a forecast fitted from one; empty: the package's."
    )
    flags.DEFINE_float(
        "pilot",
        0.0,
        "Share of the tokens on which every method is trained first; 0: none.",
        lower_bound=0,
        upper_bound=1,
    )
    flags.DEFINE_bool("cluster", True, "The machines can train one model together; --nocluster: they cannot.")
    flags.DEFINE_string("topology", None, "Devices of one slice, for times and costs: v5e:8x8, h100:8.")
    flags.DEFINE_float("price", None, "Dollars per chip and hour; left out: no costs are shown.", lower_bound=0)
    flags.DEFINE_float("utilisation", 0.4, "Share of the peak that model FLOPs reach.", lower_bound=1e-6, upper_bound=1)
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Advises, then prints the page."""
    question = Question(
        parse_methods(FLAGS.methods) or default_methods(_branches(FLAGS.branches, app.config())),
        _forecast(FLAGS.map),
        FLAGS.cluster,
        FLAGS.pilot,
        parse_topology(FLAGS.topology) if FLAGS.topology else None,
        FLAGS.price,
        FLAGS.utilisation,
    )
    config = basin.prepare_theta0(app.config(), FLAGS.workdir, overwrite=FLAGS.overwrite)
    text = advise(open_run.open_run(config, FLAGS.workdir, overwrite=FLAGS.overwrite), config, question)
    if app.is_first_process():
        print_text(text)


def _branches(texts: Sequence[str], config: ConfigDict) -> list[int]:
    """Returns the numbers of branches; four where the config trains jointly.

    Raises:
        ValueError: One is no number above 1.
    """
    if not all(text.isdigit() and int(text) > 1 for text in texts):
        raise ValueError(f"--branches={','.join(texts)}: expected whole numbers above 1, as in --branches=4,8")
    own = config.partition.groups
    return [int(text) for text in texts] or [own if own > 1 else 4]


def _forecast(path: str) -> MapForecast | None:
    return read_map(absolute(path)) if path else shipped()


if __name__ == "__main__":
    app.start(main, define_flags)
