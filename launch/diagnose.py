"""Diagnoses a finished or half-finished run; each result is written to `diagnostics/NAME.json`.

merit diagnose --workdir=runs/quickstart
merit diagnose --workdir=runs/quickstart --only=connectivity,gain --config.diagnostics.examples=50

docs/guides/diagnostics.md explains what each measures, what it costs and what a healthy value looks like.
"""

from collections.abc import Sequence

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_diagnostics
from merit_jax.launch.wiring import basin, open_run, saved_config
from merit_jax.pipeline.run_diagnostics import DIAGNOSTICS, run_diagnostics

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_list("only", [], f"Diagnostics to make, of {', '.join(DIAGNOSTICS)}; empty: all that are possible.")
    flags.DEFINE_bool("overwrite", False, "Make diagnostics again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Makes the diagnostics, then prints the results of all that the run has."""
    config = basin.prepare_theta0(saved_config.config(FLAGS.workdir), FLAGS.workdir)
    run = open_run.open_run(config, FLAGS.workdir, overwrite=FLAGS.overwrite)
    outcome = run_diagnostics(run, FLAGS.only)
    if app.is_first_process():
        print_diagnostics(run.workdir, outcome.impossible)


if __name__ == "__main__":
    app.start(main, define_flags, saved_config.DEFAULT)
