"""The contract of what places a model's activations on devices."""

from typing import Protocol, runtime_checkable

import jax
from jax.sharding import Mesh


@runtime_checkable
class Placement(Protocol):
    """The placement of activations on a mesh.

    Attributes:
        rows: Mesh axes of rows.
        heads: Mesh axis of attention heads.
        tokens: Mesh axis of the tokens of a row.
    """

    rows: tuple[str, ...]
    heads: str
    tokens: str

    def mesh(self) -> Mesh:
        """Returns the mesh."""

    def keep(self, x: jax.Array) -> jax.Array:
        """Constrains token vectors [b, t, d] to be sharded as their batch is."""
