"""Counts floating-point operations from shapes: 2 for every weight and vector, 4 for every query-key pair and channel.

XLA's own counts do not serve here: they count the body of a loop over layers once. Recomputation (`model.remat`) is left out, as
for model FLOPs utilisation (MFU).
"""

from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.core import tree
from merit_jax.planning.shapes import PARTS, Architecture, ImageWork, multiplications, parts


class RowShape(NamedTuple):
    """One row of a batch.

    Attributes:
        length: Tokens, padding included.
        supervised: Positions whose logits are computed.
        images: The vision tower's work on it.
    """

    length: int
    supervised: int
    images: ImageWork = ImageWork()


class PassFlops(NamedTuple):
    """FLOPs of one part of the model on one row.

    Attributes:
        forward: From inputs to outputs.
        backward: Gradients, of activations where something before them learns, and of the weights that learn.
    """

    forward: int
    backward: int


def row_work(architecture: Architecture, row: RowShape, trainable: Sequence[str]) -> dict[str, PassFlops]:
    """Returns the FLOPs of each part on a row. With everything trained, `6 N` per vector and `12 · pairs · width` in all.

    Args:
        architecture: The model.
        row: The row.
        trainable: Regular expressions over parameter paths; empty: nothing, which is a forward pass.

    Returns:
        Name of a part -> its FLOPs.
    """
    chosen = set(tree.matching(tree.flatten(architecture.abstract), trainable)) if trainable else set()
    work, learning = {}, False
    for name, leaves in sorted(parts(architecture).items(), key=lambda part: PARTS.index(part[0])):
        learns = {path: leaf for path, leaf in leaves.items() if path in chosen}
        learning = learning or bool(learns)
        vectors, pairs, channels = _sizes(architecture, row, name)
        attention = 4 * pairs * channels
        used = architecture.decoder.used if name == "decoder" else 1.0
        forward = 2 * multiplications(leaves, used) * vectors + attention
        backward = (forward + attention if learning else 0) + 2 * multiplications(learns, used) * vectors
        work[name] = PassFlops(forward, backward)
    return {**work, "unembedding": _unembedding(architecture, row, chosen, learning)}


def row_flops(architecture: Architecture, row: RowShape, trainable: Sequence[str]) -> int:
    """Returns the FLOPs of a row, in all."""
    return sum(sum(work) for work in row_work(architecture, row, trainable).values())


def _sizes(architecture: Architecture, row: RowShape, part: str) -> tuple[int, int, int]:
    """Returns the vectors that go through a part, the query-key pairs over all its blocks, and the channels of a query."""
    if part == "decoder":
        stack = architecture.decoder
        return row.length, stack.layers * row.length**2, stack.query
    if part == "projector" or architecture.tower is None:
        return row.images.features, 0, 0
    return row.images.vectors, row.images.pairs, architecture.tower.query


def _unembedding(architecture: Architecture, row: RowShape, chosen: set[str], learning: bool) -> PassFlops:
    once = 2 * architecture.vocab * architecture.decoder.width * row.supervised
    learns = any("unembed/" in path for path in chosen) or (
        any("embed/embedding" in path for path in chosen) and not _has_unembedding(architecture)
    )
    return PassFlops(once, once * (learning + learns))


def _has_unembedding(architecture: Architecture) -> bool:
    return any("unembed/" in path for path in tree.flatten(architecture.abstract))
