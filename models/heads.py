"""The attention heads of a model, as values: how many there are, gates on them, and the entropy of what they attend to."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Float32

DECODER, VISION = "decoder", "vision"
"""The parts of a model that have attention heads."""


class HeadCount(NamedTuple):
    """The attention heads of a part of a model: all of its layers have the same number.

    Attributes:
        layers: Layers.
        heads: Query heads of a layer.
        groups: Key and value heads of a layer; each serves `heads / groups` neighbouring query heads.
    """

    layers: int
    heads: int
    groups: int


class HeadEntropy(NamedTuple):
    """Attention entropy of heads, row by row.

    Attributes:
        mean: `-Σ_j p_j log p_j / log n` over the n keys that a query sees, in [0, 1], averaged over the row's queries.
        queries: Queries of the row that count: no padding, and with two keys or more.
    """

    mean: Float32[jax.Array, "layers b heads"]
    queries: Float32[jax.Array, "layers b"]


Gates = Mapping[str, Any]
"""Part of a model, "decoder" or "vision" -> factors of what its heads give, [layers, heads] or, by row, [layers, b, heads]."""
