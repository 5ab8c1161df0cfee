"""Readers of parameters, one leaf at a time: of a tree in memory, an Orbax checkpoint, or one laid over another."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from merit_jax.checkpoints.compatibility import same_leaves
from merit_jax.core import tree
from merit_jax.core.leaves import LeafReader, LeafSpec
from merit_jax.core.types import Params
from merit_jax.workdir.artifacts import whole_checkpoint
from merit_jax.workdir.paths import absolute

LOCAL = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
"""Process 0 reads and writes alone: no barrier that other processes would have to reach."""


def distance(one: LeafReader, other: LeafReader) -> float:
    """Computes ‖a − b‖₂ over the leaves of `one`, read one at a time; `other` may have more.

    Examples:
        >>> one, other = TreeLeaves({"w": np.array([3.0, 0.0])}), TreeLeaves({"w": np.array([0.0, 4.0])})
        >>> distance(one, other)
        5.0
    """
    squares = (np.square(one.read(path).astype(np.float64) - other.read(path)).sum() for path in one.paths())
    return float(np.sqrt(sum(squares)))


class TreeLeaves:
    """The leaves of params in memory."""

    def __init__(self, params: Params):
        self._leaves = tree.flatten(params)

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns path name -> shape and dtype, sorted by name."""
        return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> np.ndarray:
        """Returns the leaf, on the host."""
        return np.asarray(self._leaves[path])


class OrbaxLeaves:
    """The leaves of an Orbax checkpoint of a dict tree, each read when needed.

    Args:
        directory: The item's directory, the one that holds `_METADATA`.

    Raises:
        ValueError: No checkpoint there, it is damaged, or it holds something else than a dict of arrays.
    """

    def __init__(self, directory: epath.PathLike):
        self._directory = absolute(directory)
        if not (self._directory / "_METADATA").exists():
            raise ValueError(
                f"{self._directory}: no Orbax checkpoint of a params tree; give the finished item's directory"
            )
        self._handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=LOCAL)
        self._keys: dict[str, tuple[str, ...]] = {}
        self._specs: dict[str, jax.ShapeDtypeStruct] = {}
        with whole_checkpoint(self._directory):
            metadata = self._handler.metadata(self._directory).tree
        self._visit(metadata, ())

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns path name -> shape and dtype, sorted by name."""
        return dict(sorted(self._specs.items()))

    def read(self, path: str) -> np.ndarray:
        """Reads this one leaf from disk."""
        item: Any = self._specs[path]
        restore: Any = ocp.RestoreArgs(restore_type=np.ndarray)
        for key in reversed(self._keys[path]):
            item, restore = {key: item}, {key: restore}
        arguments = ocp.args.PyTreeRestore(item=item, restore_args=restore, partial_restore=True)
        with whole_checkpoint(self._directory):
            value = self._handler.restore(self._directory, args=arguments)
        for key in self._keys[path]:
            value = value[key]
        return value

    def _visit(self, node: Any, keys: tuple[str, ...]) -> None:
        """Collects keys, shapes and dtypes; dicts may be nested, or flat with "/" in their keys."""
        if isinstance(node, Mapping):
            for key in node:
                self._visit(node[key], (*keys, key))
            return
        path = "/".join(keys)
        if getattr(node, "shape", None) is None or getattr(node, "dtype", None) is None:
            raise ValueError(f"{self._directory}: {path} is {type(node).__name__}; expected a dict of arrays")
        if path in self._keys:
            raise ValueError(f"{self._directory}: two leaves are called {path}")
        self._keys[path], self._specs[path] = keys, jax.ShapeDtypeStruct(node.shape, node.dtype)


class SomeLeaves:
    """Some of the leaves of another reader.

    Args:
        reader: All leaves.
        paths: Path names of those wanted.
    """

    def __init__(self, reader: LeafReader, paths: Iterable[str]):
        self._reader, self._wanted = reader, set(paths)

    def paths(self) -> dict[str, LeafSpec]:
        """Returns path name -> shape and dtype, sorted by name."""
        return {path: spec for path, spec in self._reader.paths().items() if path in self._wanted}

    def read(self, path: str) -> np.ndarray:
        """Reads the leaf of the other reader."""
        return self._reader.read(path)


class JoinedLeaves:
    """The leaves of two readers that have none in common.

    Args:
        one: The first reader.
        other: The second.
    """

    def __init__(self, one: LeafReader, other: LeafReader):
        self._one, self._other, self._owned = one, other, other.paths()

    def paths(self) -> Mapping[str, LeafSpec]:
        """Returns path name -> shape and dtype, sorted by name."""
        return dict(sorted({**self._one.paths(), **self._owned}.items()))

    def read(self, path: str) -> np.ndarray:
        """Reads the leaf of the reader that has it."""
        return (self._other if path in self._owned else self._one).read(path)


class OverlayLeaves:
    """One set of leaves over another: theta0 with the trained leaves in place.

    Args:
        base: All leaves.
        over: Those that take precedence.

    Raises:
        ValueError: A leaf of `over` is not in `base`, or differs in shape or dtype.
    """

    def __init__(self, base: LeafReader, over: LeafReader):
        self._base, self._over = base, over
        self._specs, self._owned = base.paths(), over.paths()
        same_leaves(self._specs, self._owned, "the overlay")

    def paths(self) -> dict[str, LeafSpec]:
        """Returns path name -> shape and dtype, sorted by name."""
        return dict(self._specs)

    def read(self, path: str) -> np.ndarray:
        """Reads the overlay's leaf, or the base's where the overlay has none."""
        return (self._over if path in self._owned else self._base).read(path)
