"""List of trees on disk, for vectors that do not fit into memory together."""

from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.core import sharding
from merit_jax.core.types import Leaves


class SpilledTrees:
    """Trees of arrays in the order they were appended, one of them in memory at a time.

    Args:
        directory: An existing folder for scratch files, on a local disk; the caller removes it.
    """

    def __init__(self, directory: Path):
        self._directory = directory
        self._placements: list[dict[str, jax.sharding.Sharding]] = []

    def append(self, vector: Leaves, /) -> None:
        """Writes a tree, leaf by leaf."""
        index = len(self._placements)
        self._placements.append({path: jnp.asarray(leaf).sharding for path, leaf in vector.items()})
        for number, leaf in enumerate(vector.values()):
            np.save(self._file(index, number), sharding.to_host(leaf))

    def __len__(self) -> int:
        return len(self._placements)

    def __iter__(self) -> Iterator[Leaves]:
        """Reads the trees back, each to its own devices."""
        for index, placements in enumerate(self._placements):
            yield {
                path: jax.device_put(np.load(self._file(index, number), mmap_mode="r"), target)
                for number, (path, target) in enumerate(placements.items())
            }

    def _file(self, index: int, number: int) -> Path:
        return self._directory / f"{index}.{number}.npy"
