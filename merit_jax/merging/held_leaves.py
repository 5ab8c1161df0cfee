"""Params in memory, as an operator reads them."""

from typing import Any

import jax

from merit_jax.core import tree
from merit_jax.core.types import Params


class HeldLeaves:
    """Params in memory, on the devices where they are."""

    def __init__(self, params: Params):
        self._leaves = tree.flatten(params)

    def paths(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns path name -> shape and dtype, sorted by name."""
        return {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> Any:
        """Returns the leaf, on the devices where it is."""
        return self._leaves[path]
