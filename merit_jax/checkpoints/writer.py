"""Writes an Orbax checkpoint one leaf at a time, whole or not at all."""

import asyncio
import ctypes
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from merit_jax.checkpoints.readers import LOCAL
from merit_jax.core import tree
from merit_jax.core.leaves import LeafSpec
from merit_jax.core.types import Array
from merit_jax.workdir.artifacts import written_checkpoint

CHUNK_BYTES = 2**26
"""Largest piece in which a parameter is stored, so that a sharded restore reads little more than it needs."""


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
        """Computes, writes and forgets each parameter; returns nothing to wait for."""
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


def write_streamed(
    out: epath.Path,
    specs: Mapping[str, LeafSpec],
    value: Callable[[str], Array],
    progress: Callable[[str], None] | None = None,
) -> None:
    """Writes an Orbax checkpoint of a dict tree, computing each parameter only when it is written.

    Args:
        out: Directory of the checkpoint; exists only when it is whole.
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
