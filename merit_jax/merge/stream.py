"""Merging from checkpoint to checkpoint, one parameter at a time: memory for a few tensors, never for a model."""

import asyncio
import ctypes
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from merit_jax import tree
from merit_jax.artifact import written_checkpoint
from merit_jax.merge import checks
from merit_jax.merge.leaves import LOCAL
from merit_jax.merge.merger import Merger
from merit_jax.types import Array, LeafReader
from merit_jax.workdir import absolute

CHUNK_BYTES = 2**26
"""Largest piece in which a parameter is stored, so that a sharded restore reads little more than it needs."""


class Counts(NamedTuple):
    """What a streamed merge did.

    Attributes:
        merged: Parameters that the branches hold.
        copied: Parameters that no branch holds (frozen in training), copied from theta0.
    """

    merged: int
    copied: int


@dataclasses.dataclass(frozen=True)
class _Deferred:
    """A parameter that is computed when it is written. Not a pytree: a leaf to Orbax."""

    shape: tuple[int, ...]
    dtype: np.dtype
    compute: Callable[[], np.ndarray]


class _DeferredHandler(ocp.type_handlers.NumpyHandler):
    """Writes deferred parameters one after the other, as Orbax writes numpy arrays."""

    def __init__(self) -> None:
        super().__init__(deepcopy_host_arrays=False)

    async def serialize(self, values: Sequence[_Deferred], infos: Sequence[Any], args: Any = None) -> Sequence[Any]:
        """Computes, writes and forgets each parameter; nothing is left to wait for."""
        for value, info, arg in zip(values, infos, args, strict=True):
            await self._write(await asyncio.to_thread(value.compute), info, arg)
            _give_back_freed_memory()
        return []

    async def _write(self, array: np.ndarray, info: Any, arg: Any) -> None:
        for written in await super().serialize([array], [info], [arg]):
            await asyncio.to_thread(written.result)


def _give_back_freed_memory() -> None:
    """Returns freed blocks to the system; glibc would keep those of every thread that has read or written a chunk."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def merge_streamed(
    merger: Merger,
    base: LeafReader,
    branches: Sequence[LeafReader],
    weights: checks.Weights,
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


def write_streamed(
    out: epath.Path,
    specs: Mapping[str, jax.ShapeDtypeStruct],
    value: Callable[[str], Array],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Writes an Orbax checkpoint of a dict tree, computing each parameter only when it is written.

    Args:
        out: Where it goes; exists only when it is whole.
        specs: Path name -> shape and dtype.
        value: The values of a parameter.
        progress: Called with each path name once the parameter is computed.
    """

    def compute(path: str) -> np.ndarray:
        leaf = np.asarray(value(path))
        if progress:
            progress(path)
        return leaf

    _write(out, {path: _Deferred(s.shape, np.dtype(s.dtype), partial(compute, path)) for path, s in specs.items()})


def _write(out: epath.Path, leaves: dict[str, _Deferred]) -> None:
    registry = ocp.type_handlers.create_type_handler_registry(
        (_Deferred, _DeferredHandler()), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, multiprocessing_options=LOCAL)
    params = tree.unflatten(leaves)
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), params)
    with written_checkpoint(out), ocp.Checkpointer(handler, multiprocessing_options=LOCAL) as checkpointer:
        checkpointer.save(out, args=ocp.args.PyTreeSave(params, save_args=save_args))
