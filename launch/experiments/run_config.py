"""Runs the stages of one config; with all of them also its baselines, in workdirs under the run's."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from merit_jax.launch.experiments.methods import Comparison, plan_comparison, train_and_merge
from merit_jax.launch.wiring import basin, open_run
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.stages import OF_A_ROUND, STAGES, open_round, run_stages
from merit_jax.pipeline.trace_frontier import trace_frontier
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import MERGED


def run_config(
    config: ConfigDict, workdir: str, stages: Sequence[str], *, overwrite: bool, allow_missing: bool = False
) -> Run:
    """Runs stages of a config; with all stages, trains its baselines too and evaluates everything together.

    Args:
        config: All keys of `configs/common.py`.
        workdir: Directory of the artifacts.
        stages: Names of stages; empty: all.
        overwrite: Make artifacts again whose inputs have changed, instead of refusing.
        allow_missing: Merge the finished branches where others are not finished.
    """
    config = basin.prepare_theta0(config, workdir, overwrite=overwrite)
    run = open_run.open_run(config, workdir, overwrite=overwrite, allow_missing=allow_missing)
    baselines = plan_baselines(run)
    if stages:
        run_stages(run, stages)
    else:
        run_stages(run, ["mixture"])
        if not run.workdir.config.exists():
            save_config(run)
        run_stages(run, [name for name in STAGES if name != "evaluate"])
        models = {**train_and_merge(run, baselines), MERGED: run.workdir}
        evaluate_models(run, models)
        trace_frontier(run, models)
    save_config(run)
    return run


def run_round(
    config: ConfigDict,
    workdir: str,
    number: int,
    stages: Sequence[str],
    *,
    overwrite: bool,
    allow_missing: bool = False,
) -> Run:
    """Runs stages of one round of a config, for `merit cluster`, which trains the branches elsewhere.

    Args:
        config: All keys of `configs/common.py`.
        workdir: Directory of the whole run.
        number: The round; 0: the warm start.
        stages: Names of stages; empty: all up to the merge.
        overwrite: Make artifacts again whose inputs have changed, instead of refusing.
        allow_missing: Is refused in rounds.

    Returns:
        The round, as a run.
    """
    config = basin.prepare_theta0(config, workdir, overwrite=overwrite)
    whole = open_run.open_run(config, workdir, overwrite=overwrite, allow_missing=allow_missing)
    run = open_round(whole, number)
    run_stages(run, stages or OF_A_ROUND)
    return run


def plan_baselines(run: Run) -> Comparison:
    """Plans the baselines of the config.

    Raises:
        ValueError: A baseline is unknown, or the WiSE control comes without a joint run that it interpolates to.
    """
    return plan_comparison(run.config, run.config.baselines, run.workdir.baselines, own=run.workdir.root)


def save_config(run: Run) -> None:
    """Writes the config into the workdir if it is not there already, for commands that read the run later."""
    path, text = run.workdir.config, run.config.to_json_best_effort(indent=2) + "\n"
    if not path.exists() or path.read_text() != text:
        run.on_first_process(lambda: write_text(path, text))
