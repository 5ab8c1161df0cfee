"""The difference of a run's models from theta0 as an update of low rank, for a folder that PEFT loads."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from merit_jax.core.leaves import LeafReader
from merit_jax.core.registry import lookup
from merit_jax.launch.wiring.open_run import Theta0Checkpoint
from merit_jax.merging import MERGERS
from merit_jax.models.adapters.low_rank import LowRank, truncate, weighted_sum
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.merge_record import read_merge, source_of_branches
from merit_jax.pipeline.outer import outer_step
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.run_model_card import branch_card, merged_card
from merit_jax.pipeline.train_branches import branch_leaves, checkpoint_leaves
from merit_jax.workdir.artifacts import plain

log = logging.getLogger("merit_jax")


class Truncated(NamedTuple):
    """Updates of a rank at most.

    Attributes:
        updates: Name -> the update.
        lost: Share of the sum of squares of all updates that was left out; 0 of exact ones.
    """

    updates: dict[str, LowRank]
    lost: float


def export_adapter(run: Run, branch: int | None, out: epath.PathLike, rank: int) -> None:
    """Writes the merged model of a run, or a branch, as an adapter of PEFT.

    Args:
        run: The run.
        branch: Number of a branch; None for the merged model.
        out: Folder to make.
        rank: Rank of each kernel's update at most; 0: as many as make it exact.

    Raises:
        ValueError: The run trained no adapters or is in rounds, the difference from theta0 is no sum of low-rank products and no
            rank is given, or a kernel has no place in an adapter of PEFT.
    """
    if run.adapter is None or in_rounds(run.config) or not isinstance(run.theta0, Theta0Checkpoint):
        raise ValueError(
            "--adapter exports what train.adapter has trained, without rounds; this run trains other parameters or starts from "
            "merged models: leave it out, and the whole model is exported"
        )
    found = capped(_updates(run, branch, exact=not rank), rank)
    card = merged_card(run) if branch is None else branch_card(run, branch)
    run.theta0.export_adapter(found.updates, out, adapter_card(card, found))


def capped(updates: Iterable[tuple[str, LowRank]], rank: int) -> Truncated:
    """Returns updates of a rank at most, and logs the share of the squared norm that is lost; rank 0 leaves them as they are."""
    if not rank:
        return Truncated(dict(updates), 0.0)
    found, lost, whole = {}, 0.0, 0.0
    for name, update in updates:
        part = truncate(update, rank)
        found[name], lost, whole = part.update, lost + part.lost, whole + part.whole
    share = lost / whole if whole else 0.0
    log.info("rank %d keeps all but %.4g %% of the squared norm of the difference from theta0", rank, 100 * share)
    return Truncated(found, share)


def adapter_card(card: Mapping[str, str], found: Truncated) -> dict[str, str]:
    """Returns a model's card as that of its adapter, with the ranks and what was lost."""
    ranks = sorted({update.rank for update in found.updates.values()})
    words = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    lost = f"truncated by SVD: {100 * found.lost:.4g} % of the squared norm is lost" if found.lost else "exact"
    record = json.loads(card["merit.json"])
    record["adapter"] = {"ranks": ranks, "lost_share_of_squared_norm": found.lost}
    text = card["README.md"].replace("library_name: transformers", "library_name: peft", 1)
    note = f"\nThe difference from the base model as an adapter for PEFT, of {words} ({lost}).\n"
    return {"README.md": text + note, "merit.json": json.dumps(plain(record), indent=2) + "\n"}


def _updates(run: Run, branch: int | None, *, exact: bool) -> Iterable[tuple[str, LowRank]]:
    """Returns the difference of each kernel from theta0's: as a sum of products, or whole where it is none."""
    factors = _products(run, branch)
    if factors is not None:
        return factors
    if exact:
        what = f"merge.method = {run.config.merge.method!r} of" if branch is None else "a branch of"
        raise ValueError(
            f"{what} train.adapter = {run.config.train.adapter!r} differs from theta0 by no sum of low-rank products; export the "
            "whole model (without --adapter), or the nearest update of a rank with --adapter_rank"
        )
    model: LeafReader = merged_leaves(run.workdir) if branch is None else branch_leaves(run, branch)
    theta0 = run.theta0.leaves()
    return ((kernel, _difference(model.read(kernel), theta0.read(kernel))) for kernel in _adapter(run).kernels)


def _products(run: Run, branch: int | None) -> Iterable[tuple[str, LowRank]] | None:
    """Returns the differences as `Σ_k c_k s A_k B_k`, where they are that."""
    adapter, source = _adapter(run), source_of_branches(run)
    if not adapter.is_low_rank:
        return None
    weights: Mapping[int, float] = {branch: 1.0} if branch is not None else {}
    if branch is None:
        record = read_merge(run)
        merger = lookup(MERGERS, record["method"], "merge.method")
        blocks = len(record.get("search", {}).get("rows", [()])) > 1
        if merger.linear is None or blocks or not outer_step(run).averages:
            return None
        present = [key is not None for key in record["inputs"]["branches"]]
        weights = {k: c for k, (c, there) in enumerate(zip(record["weights"], present, strict=True)) if there}
    exclude = run.config.merge.exclude if branch is None else ()
    kernels = [kernel for kernel in adapter.kernels if not any(re.search(pattern, kernel) for pattern in exclude)]
    readers: list[Callable[[str], Any]] = [checkpoint_leaves(source, k).read for k in weights]
    return (
        (kernel, weighted_sum([adapter.update(kernel, read) for read in readers], list(weights.values())))
        for kernel in kernels
    )


def _difference(one: np.ndarray, other: np.ndarray) -> LowRank:
    """Returns one minus the other as a product with the identity, of full rank."""
    identity = np.broadcast_to(np.eye(one.shape[-1], dtype=np.float32), (*one.shape[:-2], *[one.shape[-1]] * 2))
    return LowRank(np.asarray(one, np.float32) - other, identity)


def _adapter(run: Run) -> Any:
    return run.adapter
