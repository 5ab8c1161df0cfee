"""Splits a mixture into branches, and writes them for other trainers.

merit partition --config=smollm2_bigbench:merit2d --workdir=DIR
merit partition --config=smollm2_bigbench:merit2d --workdir=DIR --emit=llamafactory,axolotl,trl

Runs the stages before training; those that are done are skipped. For each tool of --emit, DIR/emitted/TOOL then has a folder for
each branch, with its data and the tool's configuration, and a README with the commands that train and merge them.
"""

from collections.abc import Sequence

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.console.tables import print_partition, print_text
from merit_jax.launch.emitting import EMITTERS
from merit_jax.launch.emitting.emit import emit, places
from merit_jax.launch.emitting.settings import unsaid
from merit_jax.launch.experiments.run_config import run_config
from merit_jax.pipeline.stages import BEFORE

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run's artifacts.", required=True)
    flags.DEFINE_list(
        "emit", [], f"Tools to write the branches for, of {', '.join(EMITTERS)}, separated by commas; empty: none."
    )
    flags.DEFINE_string("out", None, "Folder of the files of one tool; left out: `emitted/TOOL` in the workdir.")
    flags.DEFINE_bool(
        "overwrite", False, "Make artifacts and files again whose inputs have changed, instead of refusing."
    )


def main(argv: Sequence[str]) -> None:
    """Splits the mixture, prints the branches, and writes them."""
    config, folders = app.config(), places(FLAGS.emit, FLAGS.workdir, FLAGS.out)
    if folders and (problem := next(unsaid(config), "")):
        raise ValueError(f"--emit={','.join(FLAGS.emit)}: {problem}")
    run = run_config(config, FLAGS.workdir, BEFORE, overwrite=FLAGS.overwrite)
    if not app.is_first_process():
        return
    print_partition(run.workdir)
    for tool, folder in folders.items():
        emit(run, tool, folder, overwrite=FLAGS.overwrite)
        print_text(
            f"{EMITTERS[tool].name}: {folder} has the branches; README.md there says how to train and merge them"
        )


if __name__ == "__main__":
    app.start(main, define_flags)
