"""The paper on one page: the stages of MERIT in order (Alg. 1), each callable alone; in rounds, several times over."""

import logging
from collections.abc import Callable, Sequence

from merit_jax.core.registry import lookup
from merit_jax.pipeline.estimate_curvature import CURVATURE, estimate_curvature, uses_curvature
from merit_jax.pipeline.estimate_gradients import estimate_gradients
from merit_jax.pipeline.evaluate_models import evaluate_models
from merit_jax.pipeline.export_model import export_model
from merit_jax.pipeline.measure_conflict import measure_conflict
from merit_jax.pipeline.merge_branches import merge_branches
from merit_jax.pipeline.merge_record import read_merge
from merit_jax.pipeline.partition_mixture import needs_conflict, partition_mixture
from merit_jax.pipeline.project_models import project_models
from merit_jax.pipeline.pruning.prune import prune_merged, prunes
from merit_jax.pipeline.read_mixture import read_mixture
from merit_jax.pipeline.reuse_branches import reuse_branches
from merit_jax.pipeline.rounds import in_rounds, round_numbers, round_run
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.search_settings import searches
from merit_jax.pipeline.search_weights import search
from merit_jax.pipeline.stage import timed
from merit_jax.pipeline.train_branches import train_branches
from merit_jax.training.trackers import check_trackers
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")

BEFORE = ("mixture", "gradients", "conflict", CURVATURE, "partition")
"""Stages before training."""

OF_A_ROUND = (*BEFORE, "train", "merge")
"""Stages of one round."""

OF_ROUNDS = ("gradients", "conflict", CURVATURE, "partition", "project")
"""Stages that a run in rounds has in its rounds, or not at all."""

STAGES: dict[str, Callable[[Run], bool]] = {
    "mixture": read_mixture,  # read D_1..D_T: s_t samples, n_t tokens
    "gradients": estimate_gradients,  # step 1: g_t at theta0, on at most n examples each
    "conflict": measure_conflict,  # step 1-2: C_ij = <g_i, g_j> of unit gradients; its principal axes
    CURVATURE: estimate_curvature,  # H g_t, for the split by g_i'H g_j in place of C_ij; else left out
    "partition": partition_mixture,  # step 3: K groups, halved along each axis at the sample-weighted median
    "train": train_branches,  # step 4: theta_k from theta0 on group k, alone
    "search": search,  # w_k that score best on the suites' choosing half, where they are not by tokens
    "merge": merge_branches,  # step 5: sum_k w_k theta_k with w_k = N_k / sum_j N_j
    "project": project_models,  # branches and merged model among the datasets on the conflict axes
    "export": export_model,  # the merged model as a Hugging Face folder
    "prune": prune_merged,  # the merged model without the heads of smallest HIES, where prune.ratio asks for it
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
        ValueError: A stage is unknown, its inputs are missing, its artifact was made from other inputs, or a tracker of the
            training is not installed.
    """
    for name in stages:
        lookup(STAGES, name, "stage")
    table, skipped = ({**STAGES, "train": train_rounds} if in_rounds(run.config) else STAGES), _skipped(run)
    if in_rounds(run.config) and (own := [name for name in stages if name in OF_ROUNDS]):
        log.info("%s: every round has its own, which training runs; alone, with --round", ", ".join(own))
    chosen = [name for name in STAGES if (not stages or name in stages) and name not in skipped]
    if {"partition", "train"} & {*chosen}:
        _refuse_other_rounds(run)
    if "train" in chosen:
        check_trackers(run.config.train.trackers)
    worked = [table[name](run) for name in chosen]
    return any(worked)


def _skipped(run: Run) -> set[str]:
    """Returns the stages that the run has no use for."""
    found = {name for name, used in (("search", searches(run)), ("prune", prunes(run.config))) if not used}
    if in_rounds(run.config):
        return {*found, *OF_ROUNDS}
    found |= set() if needs_conflict(run) else {"gradients", "conflict", "project"}
    return found | (set() if uses_curvature(run.config) else {CURVATURE})


def train_rounds(run: Run, others: Sequence[Workdir] = ()) -> bool:
    """Trains the rounds that are not finished, one after the other; every one but the last is merged, to be the next one's start.

    Args:
        run: The run in rounds.
        others: Workdirs of other runs whose rounds may have branches that are the same: the warm start, say.

    Returns:
        Whether there was anything to do.
    """

    def train() -> bool:
        worked = False
        for number in round_numbers(run.config):
            part = round_run(run, number)
            log.info("round %d of %d", number, run.config.rounds.count)
            worked |= run_stages(part, BEFORE)
            worked |= reuse_branches(
                part, [Workdir(home, home) for other in others if (home := other.round(number)).exists()]
            )
            worked |= run_stages(part, ("train",) if number == run.config.rounds.count else ("train", "merge"))
        return worked

    return timed(run, "train", train)


def _refuse_other_rounds(run: Run) -> None:
    """Refuses to train in rounds where a run without them is, and the other way round.

    Raises:
        ValueError: The workdir holds such a run.
    """
    rounds, whole = run.workdir.root / "rounds", run.workdir.partition
    other = whole if in_rounds(run.config) else rounds
    if other.exists() and not run.overwrite:
        kind = "without rounds" if in_rounds(run.config) else "in rounds"
        raise ValueError(
            f"{other} is of a run {kind}, and rounds.count = {run.config.rounds.count} with rounds.warm = "
            f"{run.config.rounds.warm:g} is another; give the keys that it was made with, or use another --workdir"
        )


def open_round(run: Run, number: int) -> Run:
    """Returns a round, as `round_run` does, after comparing the merges of those before it with what the run would make.

    Raises:
        ValueError: As for `round_run`; or an earlier round is not merged, or was made from other inputs.
    """
    for earlier in round_numbers(run.config):
        if earlier < number:
            read_merge(round_run(run, earlier))
    return round_run(run, number)
