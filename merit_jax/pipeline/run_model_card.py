"""The model card of a merged model: what it is made of, and enough to make it again."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from merit_jax.core.types import DatasetSlice
from merit_jax.merging.model_card import cell, folder_name, header, listed, versions
from merit_jax.partition.branches import Partition
from merit_jax.pipeline.partition_mixture import load_partition
from merit_jax.pipeline.run import Run
from merit_jax.workdir.artifacts import read_json

PACKAGES = ("merit-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy")


def merged_card(run: Run) -> dict[str, str]:
    """Text files that lie beside a run's merged weights: file name -> content.

    Returns:
        `README.md`, the card with a Hugging Face header, and `merit.json`, the same for programs.
    """
    merge = read_json(run.workdir.merge_record)
    plan, merged = load_partition(run), [k for k, weight in enumerate(merge["weights"]) if weight]
    gaps = missing_shares(plan, merged)
    record = {
        **_record(run),
        **{key: merge[key] for key in ("inputs", "tokens", "weights")},
        "merge": merge["method"],
        "missing": {
            "branches": sorted(set(range(len(plan.branches))) - set(merged)),
            "shares": [list(share) for share in gaps],
        },
    }
    story = (
        f"{len(merged)} copies of `{_base(run)}` were fine-tuned apart from each other, each on its own part of\n"
        f"{len(run.names)} instruction datasets, and averaged once"
    )
    settings = f"Split: `{run.config.partition.method}`; merge: `{merge['method']}`; seed: {run.config.seed}."
    return _files(run, record, story, settings, _gap_note(record, gaps) + _branch_table(record))


def branch_card(run: Run, index: int) -> dict[str, str]:
    """The same for one branch."""
    done = read_json(run.workdir.branch_done(index))
    record = {
        **_record(run),
        "inputs": done["inputs"],
        "branch": index,
        "tokens": done["tokens"],
        "steps": done["steps"],
    }
    shares = load_partition(run).branches[index].shares
    story = f"`{_base(run)}`, fine-tuned on {len(shares)} of {len(run.names)} instruction datasets: one branch, before merging"
    settings = f"Branch {index} of the split `{run.config.partition.method}`; seed: {run.config.seed}."
    datasets = "\n".join(f"* {_share(*share)}" for share in shares)
    return _files(
        run, record, story, settings, f"{done['tokens']} supervised tokens in {done['steps']} steps of\n\n{datasets}"
    )


def missing_shares(plan: Partition, merged: Collection[int]) -> list[DatasetSlice]:
    """What was to be trained on and is in none of the branches that were merged, in the plan's order.

    Args:
        plan: The partition.
        merged: Numbers of the branches that were merged.
    """
    there = {share for k in merged for share in plan.branches[k].shares}
    return [share for branch in plan.branches for share in branch.shares if share not in there]


def _base(run: Run) -> str:
    return folder_name(run.config.model.path)


def _record(run: Run) -> dict[str, Any]:
    """What merged models and branches have in common."""
    return {
        "method": run.config.method or run.config.partition.method,
        "theta0": run.theta0_fingerprint,
        "partition": load_partition(run).to_dict(),
        "config": json.loads(run.config.to_json()),
        "versions": versions(PACKAGES),
    }


def _files(run: Run, record: Mapping[str, Any], story: str, settings: str, body: str) -> dict[str, str]:
    base = _base(run)
    readme = f"""---
{header(base, datasets=run.names)}---
# {base}, fine-tuned by MERIT

{story}
(Choi & Kim, *Decentralized Instruction Tuning: Conflict-Aware Splitting and Weight Merging*, ICML 2026, arXiv:2606.01717).

* {settings}
* theta0 fingerprint: `{record["theta0"]}`.

{body}

Versions: {listed(record["versions"])}.

`merit.json` beside this file has the whole configuration, the partition and the weights in full precision.
"""
    return {"README.md": readme, "merit.json": json.dumps(record, indent=2) + "\n"}


def _gap_note(record: Mapping[str, Any], gaps: Sequence[DatasetSlice]) -> str:
    """What the reader of an incomplete merge must know."""
    absent, total = record["missing"]["branches"], len(record["partition"]["branches"])
    if not absent:
        return ""
    numbers = ", ".join(map(str, absent))
    lost = f"Missing datasets: {', '.join(_share(*share) for share in gaps)}." if gaps else "No dataset is missing."
    return f"**Incomplete**: of {total} branches (numbered from 0), {numbers} had not finished. {lost}\n\n"


def _branch_table(record: Mapping[str, Any]) -> str:
    rows = zip(record["partition"]["branches"], record["weights"], record["tokens"], strict=True)
    lines = [
        f"| {index} | {weight:.4f} | {tokens} | {', '.join(_share(*share) for share in branch['shares'])} |"
        for index, (branch, weight, tokens) in enumerate(rows)
        if weight
    ]
    return "\n".join(["| branch | weight | supervised tokens | datasets |", "|---|---|---|---|", *lines])


def _share(dataset: str, part: int, parts: int) -> str:
    name = cell(dataset)
    return name if parts == 1 else f"{name} ({part + 1} of {parts})"
