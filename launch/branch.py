"""Trains one branch on any machine; needs theta0, the data and the run's `partition.json` only.

merit branch --config=smollm2_bigbench:merit2d --workdir=DIR --branch=3
"""

from collections.abc import Sequence

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.wiring import basin, open_run
from merit_jax.pipeline.stages import open_round
from merit_jax.pipeline.train_branches import train_branch

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string(
        "workdir", None, "Directory with `partition.json`; the branch goes to `branches/<k>` in it.", required=True
    )
    flags.DEFINE_integer("branch", None, "Number of the branch, from 0.", required=True)
    flags.DEFINE_integer(
        "round", None, "Number of the round that the branch is of; 0: the warm start. Without rounds: none."
    )
    flags.DEFINE_bool(
        "overwrite", False, "Train the branch anew if it was made from other inputs, instead of refusing."
    )


def main(argv: Sequence[str]) -> None:
    """Trains the branch, or resumes it."""
    config = basin.prepare_theta0(app.config(), FLAGS.workdir, overwrite=FLAGS.overwrite)
    run = open_run.open_run(config, FLAGS.workdir, overwrite=FLAGS.overwrite)
    train_branch(run if FLAGS.round is None else open_round(run, FLAGS.round), FLAGS.branch)


if __name__ == "__main__":
    app.start(main, define_flags)
