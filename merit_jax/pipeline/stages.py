"""The paper on one page: the stages of MERIT in order (Alg. 1), each callable alone."""

from collections.abc import Callable, Sequence

from merit_jax.core.registry import lookup
from merit_jax.pipeline.estimate_curvature import CURVATURE, estimate_curvature, uses_curvature
from merit_jax.pipeline.estimate_gradients import estimate_gradients
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.export_model import export_model
from merit_jax.pipeline.measure_conflict import measure_conflict
from merit_jax.pipeline.merge_branches import merge_branches
from merit_jax.pipeline.partition_mixture import needs_conflict, partition_mixture
from merit_jax.pipeline.project_models import project_models
from merit_jax.pipeline.read_mixture import read_mixture
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import train_branches

STAGES: dict[str, Callable[[Run], bool]] = {
    "mixture": read_mixture,  # read D_1..D_T: s_t samples, n_t tokens
    "gradients": estimate_gradients,  # step 1: g_t at theta0, on at most n examples each
    "conflict": measure_conflict,  # step 1-2: C_ij = <g_i, g_j> of unit gradients; its principal axes
    CURVATURE: estimate_curvature,  # H g_t, for the split by g_i'H g_j in place of C_ij; else left out
    "partition": partition_mixture,  # step 3: K groups, halved along each axis at the sample-weighted median
    "train": train_branches,  # step 4: theta_k from theta0 on group k, alone
    "merge": merge_branches,  # step 5: sum_k w_k theta_k with w_k = N_k / sum_j N_j
    "project": project_models,  # branches and merged model among the datasets on the conflict axes
    "export": export_model,  # the merged model as a Hugging Face folder
    "evaluate": evaluate_models,  # theta0, baselines and merged on held-out records
}
"""Name -> the stage, which returns whether there was anything to do."""


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
    skipped = [] if needs_conflict(run) else ["gradients", "conflict", "project"]
    skipped += [] if uses_curvature(run.config) else [CURVATURE]
    chosen = [name for name in STAGES if (not stages or name in stages) and name not in skipped]
    worked = [STAGES[name](run) for name in chosen]
    return any(worked)
