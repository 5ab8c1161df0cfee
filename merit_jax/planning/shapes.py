"""Describes a model to a plan: the shapes of its parameters and the sizes of its blocks."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from merit_jax.core import tree

PARTS = ("vision", "projector", "decoder")
"""Parts of a vision-language model in the order in which data flows; a text model is a decoder alone."""


class BlockStack(NamedTuple):
    """Equal blocks of attention and MLP.

    Attributes:
        layers: Number of blocks.
        width: Width of the residual stream.
        query: Heads x head width.
        key: Key heads x head width.
        heads: Query heads.
        mlp: Inner width of the MLP, or of all the experts that a vector goes through.
        used: Share of the experts that a vector goes through; 1 without experts.
    """

    layers: int
    width: int
    query: int
    key: int
    heads: int
    mlp: int
    used: float = 1.0


class ImageWork(NamedTuple):
    """The vision tower's work on one row.

    Attributes:
        vectors: Vectors that go through its blocks.
        features: Features that come out of the projector.
        pairs: Query-key pairs that its attention scores, summed over its blocks.
        largest: Query-key pairs whose scores exist at one time.
        bytes: Size of the row's image arrays.
    """

    vectors: int = 0
    features: int = 0
    pairs: int = 0
    largest: int = 0
    bytes: int = 0


class Architecture(NamedTuple):
    """A model without its weights.

    Attributes:
        abstract: Tree of its parameters' shapes and types.
        decoder: The decoder's blocks.
        vocab: Rows of the unembedding.
        tower: The vision tower's blocks; None for text.
        images: Its work on a row of the training batch.
        itemsize: Bytes of a number in the computation.
    """

    abstract: Any
    decoder: BlockStack
    vocab: int
    tower: BlockStack | None
    images: ImageWork
    itemsize: int


def parts(architecture: Architecture) -> dict[str, dict[str, Any]]:
    """Returns the leaves of each part, flat by their whole paths."""
    leaves = tree.flatten(architecture.abstract)
    if architecture.tower is None:
        return {"decoder": leaves}
    return {name: {path: leaf for path, leaf in leaves.items() if path.startswith(f"{name}/")} for name in PARTS}


def size(leaves: Mapping[str, Any]) -> int:
    """Returns the number of parameters in leaves.

    Examples:
        >>> import numpy as np
        >>> size({"kernel": np.zeros((2, 3)), "bias": np.zeros(3)})
        9
    """
    return sum(math.prod(leaf.shape) for leaf in leaves.values())


def multiplications(leaves: Mapping[str, Any], used: float = 1.0) -> int:
    """Returns the multiplications of a vector with the kernels of a part and their updates, `kernel_...`.

    Tables, norms and biases have none, and the unembedding is counted by itself.

    Args:
        leaves: By path; experts' kernels are [layers, experts, in, out].
        used: Share of the experts that a vector goes through.

    Examples:
        >>> import numpy as np
        >>> multiplications({"up/kernel": np.zeros((2, 3, 4)), "experts/kernel": np.zeros((2, 8, 3, 4))}, used=0.25)
        72
    """
    kernels = {path: leaf for path, leaf in leaves.items() if "/kernel" in path and "unembed/" not in path}
    return round(sum(math.prod(leaf.shape) * (used if len(leaf.shape) > 3 else 1) for leaf in kernels.values()))
