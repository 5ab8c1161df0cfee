"""Trains one branch, on any machine: needs theta0, the data and the run's `partition.json` only.

python -m launch.branch --config=configs/smollm2_bigbench.py:merit2d --workdir=DIR --branch=3
"""

from collections.abc import Sequence

from absl import flags

from launch import basin, cli, wire
from merit_jax.stages.train import train_branch

FLAGS = flags.FLAGS


def define_flags() -> None:
    """What the command can be told."""
    cli.define_config()
    flags.DEFINE_string(
        "workdir", None, "Directory with `partition.json`; the branch goes to `branches/<k>` in it.", required=True
    )
    flags.DEFINE_integer("branch", None, "Number of the branch, from 0.", required=True)
    flags.DEFINE_bool(
        "overwrite", False, "Start the branch again if it was made from other inputs, instead of refusing."
    )


def main(argv: Sequence[str]) -> None:
    """Trains the branch, or carries on with it."""
    config = basin.settle(cli.config(), FLAGS.workdir, overwrite=FLAGS.overwrite)
    run = wire.open_run(config, FLAGS.workdir, overwrite=FLAGS.overwrite)
    train_branch(run, FLAGS.branch)


if __name__ == "__main__":
    cli.start(main, define_flags)
