"""The paper on one page: the stages of MERIT in order (Alg. 1), each callable alone."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from merit_jax.artifact import read_json, write_json
from merit_jax.registry import lookup
from merit_jax.run import Run
from merit_jax.stages.conflict import measure_conflict
from merit_jax.stages.evaluate import evaluate
from merit_jax.stages.gradients import estimate_gradients
from merit_jax.stages.merge import export, merge
from merit_jax.stages.mixture import describe_mixture
from merit_jax.stages.partition import divide, needs_conflict
from merit_jax.stages.project import project
from merit_jax.stages.train import train_all

log = logging.getLogger("merit_jax")

STAGES = {
    "mixture": describe_mixture,  # read D_1..D_T: s_t samples, n_t tokens
    "gradients": estimate_gradients,  # step 1: g_t at theta0, on at most n examples each
    "conflict": measure_conflict,  # step 1-2: C_ij = <g_i, g_j> of unit gradients; its principal axes
    "partition": divide,  # step 3: K groups, halved along each axis at the sample-weighted median
    "train": train_all,  # step 4: theta_k from theta0 on group k, alone
    "merge": merge,  # step 5: sum_k w_k theta_k with w_k = N_k / sum_j N_j
    "project": project,  # where the models went, among the datasets on the conflict axes
    "export": export,  # the merged model as a Hugging Face folder
    "evaluate": evaluate,  # base, baselines and merged on held-out records
}


def run_stages(run: Run, stages: Sequence[str] = ()) -> bool:
    """Runs stages in the order of `STAGES`; one whose artifact is there, made from the same inputs, is skipped.

    Args:
        run: The run.
        stages: Names of stages; empty for all.

    Returns:
        Whether any stage had something to do.

    Raises:
        ValueError: A stage is unknown, its inputs are missing, or its artifact was made from other inputs.
    """
    for name in stages:
        lookup(STAGES, name, "stage")
    skipped = () if needs_conflict(run) else ("gradients", "conflict", "project")
    chosen = [name for name in STAGES if (not stages or name in stages) and name not in skipped]
    worked = [timed(run, name, partial(STAGES[name], run)) for name in chosen]
    return any(worked)


def timed(run: Run, name: str, work: Callable[[], bool]) -> bool:
    """Does some work and, if there was any to do, keeps how long it took in `times.json`."""
    log.info("stage %s", name)
    began = time.monotonic()
    done = work()
    if done:
        seconds = round(time.monotonic() - began, 2)
        log.info("stage %s took %.1f s", name, seconds)
        run.on_first_process(lambda: _keep_time(run, name, seconds))
    return done


def _keep_time(run: Run, name: str, seconds: float) -> None:
    path = run.workdir.times
    times: Mapping[str, float] = read_json(path) if path.exists() else {}
    write_json(path, {**times, name: seconds})
