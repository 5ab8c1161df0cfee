"""Runs MERIT: all stages or chosen ones, and the baselines of the config beside them.

python -m launch.run --config=configs/quickstart.py --workdir=runs/quickstart
python -m launch.run --config=configs/smollm2_bigbench.py:merit2d --workdir=DIR --stages=gradients,conflict,partition
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from launch.console import app
from launch.console.tables import print_evaluation, print_frontier, print_partition, print_times
from launch.experiments.figures import draw_frontier
from launch.experiments.methods import Comparison, compare, make
from launch.wiring import basin, open_run
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stages import STAGES, run_stages
from merit_jax.pipeline.trace_frontier import trace_frontier
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import MERGED

FLAGS = flags.FLAGS


def run_all(
    config: ConfigDict, workdir: str, stages: Sequence[str], *, overwrite: bool, allow_missing: bool = False
) -> Run:
    """Runs the stages of a config; with all stages, trains its baselines too and evaluates everything together."""
    config = basin.prepare_theta0(config, workdir, overwrite=overwrite)
    run = open_run.open_run(config, workdir, overwrite=overwrite, allow_missing=allow_missing)
    baselines = baselines_of(run)
    if stages:
        run_stages(run, stages)
    else:
        run_stages(run, ["mixture"])
        if not run.workdir.config.exists():
            _keep(run)
        run_stages(run, [name for name in STAGES if name != "evaluate"])
        models = {**make(run, baselines), MERGED: run.workdir}
        evaluate_models(run, models)
        trace_frontier(run, models)
    _keep(run)
    return run


def _keep(run: Run) -> None:
    """Writes the config into the workdir if it is not there already, for commands that look at the run later."""
    path, text = run.workdir.config, run.config.to_json_best_effort(indent=2) + "\n"
    if not path.exists() or path.read_text() != text:
        run.on_first_process(lambda: write_text(path, text))


def baselines_of(run: Run) -> Comparison:
    """The baselines of the config, in workdirs of their own under the run's.

    Raises:
        ValueError: A baseline is unknown, or the WiSE control comes without a joint run that it interpolates to.
    """
    return compare(run.config, run.config.baselines, run.workdir.baselines, own=run.workdir.root)


def define_flags() -> None:
    """What the command can be told."""
    app.define_config()
    flags.DEFINE_string("workdir", None, "Directory of the run's artifacts.", required=True)
    flags.DEFINE_list("stages", [], f"Stages to run, of {', '.join(STAGES)}; empty: all.")
    flags.DEFINE_bool("overwrite", False, "Make artifacts again whose inputs have changed, instead of refusing.")
    flags.DEFINE_bool(
        "allow_missing",
        False,
        "Merge the finished branches where others are not finished; the model card says which datasets are missing.",
    )


def main(argv: Sequence[str]) -> None:
    """Runs, then prints what came out."""
    run = run_all(
        app.config(), FLAGS.workdir, FLAGS.stages, overwrite=FLAGS.overwrite, allow_missing=FLAGS.allow_missing
    )
    if app.is_first_process():
        print_partition(run.workdir)
        print_evaluation(run.workdir)
        print_frontier(run.workdir)
        draw_frontier(run.workdir)
        print_times(run.workdir)


if __name__ == "__main__":
    app.start(main, define_flags)
