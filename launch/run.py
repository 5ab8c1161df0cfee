"""Runs MERIT: all stages or chosen ones, together with the baselines of the config.

merit run --config=quickstart --workdir=runs/quickstart
merit run --config=smollm2_bigbench:merit2d --workdir=DIR --stages=gradients,conflict,partition
"""

from collections.abc import Sequence

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.console.pruning_tables import print_pruning
from merit_jax.launch.console.tables import print_evaluation, print_frontier, print_partition, print_times
from merit_jax.launch.experiments.figures import draw_frontier
from merit_jax.launch.experiments.run_config import run_config, run_round
from merit_jax.pipeline.stages import STAGES
from merit_jax.workdir.paths import Workdir

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run's artifacts.", required=True)
    flags.DEFINE_list("stages", [], f"Stages to run, of {', '.join(STAGES)}; empty: all.")
    flags.DEFINE_integer(
        "round", None, "Number of the round whose stages are run, 0: the warm start; left out: all of them."
    )
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")
    flags.DEFINE_bool(
        "allow_missing",
        False,
        "Merge the finished branches where others are not finished; the model card names the missing datasets.",
    )


def main(argv: Sequence[str]) -> None:
    """Runs, then prints the results."""
    config, given = app.config(), {"overwrite": FLAGS.overwrite, "allow_missing": FLAGS.allow_missing}
    if FLAGS.round is None:
        run = run_config(config, FLAGS.workdir, FLAGS.stages, **given)
    else:
        run = run_round(config, FLAGS.workdir, FLAGS.round, FLAGS.stages, **given)
    if app.is_first_process():
        print_partition(run.workdir)
        print_evaluation(run.workdir)
        print_frontier(run.workdir)
        draw_frontier(run.workdir)
        print_pruning(Workdir(run.workdir.pruned, run.workdir.pruned))
        print_times(run.workdir)


if __name__ == "__main__":
    app.start(main, define_flags)
