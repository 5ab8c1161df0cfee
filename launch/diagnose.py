"""Asks a finished or half-finished run why it came out as it did; each answer is kept in `diagnostics/NAME.json`.

python -m launch.diagnose --workdir=runs/quickstart
python -m launch.diagnose --workdir=runs/quickstart --only=connectivity,gain --config.diagnostics.examples=50

docs/diagnostics.md says what each of them measures, what it costs and what a healthy value looks like.
"""

from collections.abc import Sequence

from absl import flags

from launch import basin, cli, kept, wire
from launch.tables import print_findings
from merit_jax.stages.diagnose import DIAGNOSTICS, diagnose

FLAGS = flags.FLAGS


def define_flags() -> None:
    """What the command can be told."""
    cli.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_list("only", [], f"Diagnostics to make, of {', '.join(DIAGNOSTICS)}; empty: all that are possible.")
    flags.DEFINE_bool("overwrite", False, "Make diagnostics again whose inputs have changed, instead of refusing.")


def main(argv: Sequence[str]) -> None:
    """Measures, then prints what has been found so far."""
    config = basin.settle(kept.config(FLAGS.workdir), FLAGS.workdir)
    run = wire.open_run(config, FLAGS.workdir, overwrite=FLAGS.overwrite)
    outcome = diagnose(run, FLAGS.only)
    if cli.is_first_process():
        print_findings(run.workdir, outcome.impossible)


if __name__ == "__main__":
    cli.start(main, define_flags, kept.DEFAULT)
