"""Collects what the model cards of a run's merged model and of its branches record."""

import json
from collections.abc import Collection
from typing import Any

from merit_jax.core.types import DatasetSlice
from merit_jax.data.skipped import skipped_counts
from merit_jax.merging import model_card
from merit_jax.partition import Partition
from merit_jax.pipeline.merge_inputs import TOKENS
from merit_jax.pipeline.merge_record import read_merge, source_of_branches
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.read_mixture import SKIPPED
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import finished_branch
from merit_jax.workdir.paths import ORIGIN


def merged_card(run: Run) -> dict[str, str]:
    """Returns the text files next to a run's merged weights: file name -> content."""
    merge, partition = read_merge(run), load_partition(source_of_branches(run))
    merged = [k for k, key in enumerate(merge["inputs"]["branches"]) if key is not None]
    kept = ("inputs", *TOKENS.values(), "weights", "weighted_mean", "search")
    record = {
        **_record(run, partition),
        **{key: merge[key] for key in kept if key in merge},
        "merge": merge["method"],
        "missing": {
            "branches": sorted(set(range(len(partition.branches))) - set(merged)),
            "shares": [share.to_list() for share in missing_shares(partition, merged)],
        },
    }
    return model_card.merged_card(record, run.names)


def branch_card(run: Run, index: int) -> dict[str, str]:
    """Returns the text files next to the weights of one branch."""
    done = finished_branch(run, index)
    record = {
        **_record(run, load_partition(run)),
        "inputs": done["inputs"],
        "branch": index,
        "tokens": done["tokens"],
        "steps": done["steps"],
    }
    return model_card.branch_card(record, run.names)


def missing_shares(partition: Partition, merged: Collection[int]) -> list[DatasetSlice]:
    """Returns the shares that none of the merged branches was trained on, in the partition's order.

    Args:
        partition: The partition.
        merged: Numbers of the branches that were merged.
    """
    there = {share for k in merged for share in partition.branches[k].shares}
    return [share for branch in partition.branches for share in branch.shares if share not in there]


def _record(run: Run, partition: Partition) -> dict[str, Any]:
    """Returns the part of the record that merged models and branches have in common."""
    skipped, origins = skipped_counts(run.datasets), {d.name: d.report.origin for d in run.datasets if d.report.origin}
    hub = {**({"model": run.theta0.origin} if run.theta0.origin else {}), **({"datasets": origins} if origins else {})}
    return {
        **({ORIGIN: hub} if hub else {}),
        **({SKIPPED: skipped} if skipped else {}),
        "method": run.config.method or run.config.partition.method,
        "theta0": run.theta0_fingerprint,
        "partition": partition.to_dict(),
        "config": json.loads(run.config.to_json()),
        "versions": model_card.versions(model_card.RUN_PACKAGES),
    }
