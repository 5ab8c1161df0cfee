"""Merging from checkpoint to checkpoint, one parameter at a time: memory for a few tensors, never for a model."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core.types import LeafReader
from merit_jax.merging import validation
from merit_jax.merging.merger import Merger
from merit_jax.workdir.paths import absolute


class Counts(NamedTuple):
    """What a streamed merge did.

    Attributes:
        merged: Parameters that the branches hold.
        copied: Parameters that no branch holds (frozen in training), copied from theta0.
    """

    merged: int
    copied: int


def merge_streamed(
    merger: Merger,
    base: LeafReader,
    branches: Sequence[LeafReader],
    weights: validation.Weights,
    out_dir: epath.PathLike,
    progress: Callable[[str], None] | None = None,
    fishers: Sequence[LeafReader] = (),
    **options: Any,
) -> Counts:
    """Merges checkpoints into a new Orbax checkpoint, holding one parameter of every model at most.

    Operators that need a statistic of whole task vectors read the checkpoints once or twice more, beforehand.

    Parameters that no branch holds were frozen in training and are copied from theta0. Orbax writes to a temporary
    directory and renames it at the end, so `out_dir` exists only when it is whole.

    Args:
        merger: An entry of `MERGERS`.
        base: theta0.
        branches: The branches, all holding the same parameters.
        weights: Non-negative, summing to one, in the order of `branches`.
        out_dir: Where the merged params go; must not exist.
        progress: Called with each path name once the parameter is computed.
        fishers: Diagonal Fisher information of each branch, for operators that ask for it.
        **options: The operator's own.

    Returns:
        How many parameters were merged and how many copied.

    Raises:
        ValueError: Trees, shapes or dtypes differ, weights or options are wrong, a branch is not finite, `out_dir`
            exists, or this is not process 0 (other processes have nothing to do here).
    """
    out = absolute(out_dir)
    if jax.process_index():
        raise ValueError(f"a streamed merge runs on process 0 alone; this is process {jax.process_index()}")
    if out.exists():
        raise ValueError(f"{out} exists; remove it to merge again")
    merge = merger.prepare(base, branches, weights, options, fishers=fishers)
    write_streamed(out, base.paths(), merge.value, progress)
    return Counts(len(merge.trained), len(base.paths()) - len(merge.trained))
