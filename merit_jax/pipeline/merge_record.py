"""`merge.json` as others read it: the record of a run's own merge, compared with what the run would merge now."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from merit_jax.core.registry import lookup
from merit_jax.merging import MERGERS
from merit_jax.pipeline.merge_inputs import TOKENS
from merit_jax.pipeline.merge_options import merge_options
from merit_jax.pipeline.outer import outer_inputs
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.rounds import in_rounds, round_run
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.search_settings import search_settings, searches
from merit_jax.pipeline.train_branches import finished_branch
from merit_jax.workdir.artifacts import check_inputs, read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir


def source_of_branches(run: Run) -> Run:
    """Returns the run whose branches are merged: this one, its last round, or that of the workdir `merge.branches`."""
    other = run.config.merge.branches
    if in_rounds(run.config):
        return round_run(run, run.config.rounds.count)
    return run.derive(run.config, Workdir.at(other)) if other else run


def merge_settings(run: Run) -> dict[str, Any]:
    """Returns everything that decides a merge except its branches, as JSON values."""
    merger = lookup(MERGERS, run.config.merge.method, "merge.method")
    lookup(TOKENS, run.config.merge.tokens, "merge.tokens")
    statistic = merger.statistic
    return {
        "theta0": run.theta0_fingerprint,
        "method": run.config.merge.method,
        "options": merge_options(run),
        "tokens": run.config.merge.tokens,
        **({"exclude": list(run.config.merge.exclude)} if run.config.merge.exclude else {}),
        **({statistic.name: {"examples": run.config.gradients.examples}} if statistic and statistic.estimated else {}),
        **({"search": _search(run)} if searches(run) else {}),
        **outer_inputs(run, source_of_branches(run)),
    }


def _search(run: Run) -> dict[str, Any]:
    """Returns everything that decides searched weights except the branches."""
    return {"evaluations": run.config.merge.search_evaluations, **search_settings(run)}


def read_merge(run: Run) -> dict[str, Any]:
    """Reads the record of the run's merge.

    A branch that is not in the merge may be finished by now, and one that is may have been removed; every branch that is there
    is the one that was merged.

    Raises:
        ValueError: It is missing, is a merge of other branches or by another operator than the run's, or an earlier version wrote
            it, which did not record the weights that were used.
    """
    path, source = run.workdir.merge_record, source_of_branches(run)
    count = len(load_partition(source).branches)
    known = read_json(path)["inputs"]["branches"] if path.exists() else []
    now = [_merged_now(source, k, known[k] if k < len(known) else None) for k in range(count)]
    check_inputs(path, {**merge_settings(run), "branches": now}, "merit run --stages=merge")
    record = read_json(path)
    if "weighted_mean" not in record:
        raise ValueError(
            f"{path} does not say which weights were used: an earlier version wrote it; run "
            "merit run --stages=merge --overwrite"
        )
    return record


def branch_cosine(record: Mapping[str, Any]) -> float | None:
    """Returns the mean cosine of the branches' task vectors, each pair weighted by c_i c_j |τ_i| |τ_j|.

    It follows from the lengths alone: `|Σ c_k τ_k|² = Σ c_k² |τ_k|² + Σ_{i≠j} c_i c_j |τ_i| |τ_j| cos_ij`.

    Args:
        record: `merge.json`.

    Returns:
        The mean; None of fewer than two branches, and of a merge that is no weighted mean.

    Examples:
        >>> branch_cosine({"weighted_mean": True, "weights": [0.5, 0.5], "displacement": {"branches": [3, 4], "merged": 2.5}})
        0.0
    """
    weights = record.get("weights") or ()
    if not record.get("weighted_mean") or len(weights) < 2:
        return None
    parts = np.asarray(weights) * record["displacement"]["branches"]
    return float((record["displacement"]["merged"] ** 2 - (parts**2).sum()) / (parts.sum() ** 2 - (parts**2).sum()))


def _merged_now(source: Run, index: int, known: str | None) -> str | None:
    """Returns what a merge records of a branch; of one that it lacks, or that is no longer there, what it has recorded."""
    if known is None or not source.workdir.branch_done(index).exists():
        return known
    return fingerprint(finished_branch(source, index)["inputs"])
