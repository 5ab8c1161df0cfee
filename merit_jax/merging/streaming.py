"""Merges of checkpoints into a checkpoint, one parameter at a time."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from merit_jax.checkpoints.writer import write_streamed
from merit_jax.core.leaves import LeafReader
from merit_jax.merging.block_weights import leaf_weights
from merit_jax.merging.merger import Merger, Weights
from merit_jax.workdir.paths import absolute


class Counts(NamedTuple):
    """Numbers of parameters in a streamed merge.

    Attributes:
        merged: Those that the branches hold.
        copied: Those that no branch holds (frozen in training), copied from theta0.
    """

    merged: int
    copied: int


def merge_streamed(
    merger: Merger,
    base: LeafReader,
    branches: Sequence[LeafReader],
    weights: Weights,
    out_dir: epath.PathLike,
    progress: Callable[[str], None] | None = None,
    statistics: Sequence[LeafReader] = (),
    rows: Float[np.ndarray, "rows k"] | None = None,
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
        out_dir: Directory of the merged params; must not exist.
        progress: Called with each path name once the parameter is computed.
        statistics: The statistic of each branch, for operators that need one.
        rows: Weights of blocks of layers, as for `block_weights.leaf_weights`, in place of `weights`; for weighted means alone.
        **options: The operator's own.

    Raises:
        ValueError: Trees, shapes or dtypes differ, weights or options are wrong, a model is not finite, `out_dir`
            exists, or this is not process 0 (other processes have nothing to do here).
    """
    out = absolute(out_dir)
    if jax.process_index():
        raise ValueError(f"a streamed merge runs on process 0 alone; this is process {jax.process_index()}")
    if out.exists():
        raise ValueError(f"{out} exists; remove it to merge again")
    merge = merger.prepare(base, branches, weights, options, statistics=statistics)
    if rows is not None:
        merge = dataclasses.replace(merge, layer_weights=partial(leaf_weights, rows))
    write_streamed(out, base.paths(), merge.value, progress)
    return Counts(len(merge.trained), len(base.paths()) - len(merge.trained))
