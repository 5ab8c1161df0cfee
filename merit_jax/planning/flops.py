"""Floating-point operations, counted from shapes: 2 for every weight and vector, 4 for every query-key pair and channel.

XLA's own counts are of no use here: they count the body of a loop over layers once. Recomputation (`model.remat`) is no work that
a model needs, so it is left out, and a utilisation is one of model FLOPs (MFU).
"""

from collections.abc import Sequence
from typing import NamedTuple

from merit_jax.core import tree
from merit_jax.planning.shapes import PARTS, Architecture, Images, multiplied, parts, size


class RowShape(NamedTuple):
    """One row of a batch.

    Attributes:
        length: Tokens, padding included.
        supervised: Positions whose logits are computed.
        images: What the tower does to it.
    """

    length: int
    supervised: int
    images: Images = Images()


class Work(NamedTuple):
    """FLOPs of one part of the model on one row.

    Attributes:
        forward: From inputs to outputs.
        backward: Gradients, of activations where something before them learns, and of the weights that learn.
    """

    forward: int
    backward: int


def row_work(architecture: Architecture, row: RowShape, trainable: Sequence[str]) -> dict[str, Work]:
    """Part -> FLOPs of a row. With everything trained, `6 N` per vector and `12 · pairs · width` in all.

    Args:
        architecture: The model.
        row: What goes through it.
        trainable: Regular expressions over parameter paths; empty: nothing, which is a forward pass.
    """
    chosen = set(tree.matching(tree.flatten(architecture.abstract), trainable)) if trainable else set()
    work, learning = {}, False
    for name, leaves in sorted(parts(architecture).items(), key=lambda part: PARTS.index(part[0])):
        learns = {path: leaf for path, leaf in leaves.items() if path in chosen}
        learning = learning or bool(learns)
        vectors, pairs, channels = _sizes(architecture, row, name)
        attention = 4 * pairs * channels
        forward = 2 * size(multiplied(leaves)) * vectors + attention
        backward = (forward + attention if learning else 0) + 2 * size(multiplied(learns)) * vectors
        work[name] = Work(forward, backward)
    return {**work, "unembedding": _unembedding(architecture, row, chosen, learning)}


def row_flops(architecture: Architecture, row: RowShape, trainable: Sequence[str]) -> int:
    """FLOPs of a row, in all."""
    return sum(sum(work) for work in row_work(architecture, row, trainable).values())


def _sizes(architecture: Architecture, row: RowShape, part: str) -> tuple[int, int, int]:
    """Vectors that go through a part, query-key pairs that it scores over all its blocks, channels of a query."""
    if part == "decoder":
        stack = architecture.decoder
        return row.length, stack.layers * row.length**2, stack.query
    if part == "projector" or architecture.tower is None:
        return row.images.features, 0, 0
    return row.images.vectors, row.images.pairs, architecture.tower.query


def _unembedding(architecture: Architecture, row: RowShape, chosen: set[str], learning: bool) -> Work:
    once = 2 * architecture.vocab * architecture.decoder.width * row.supervised
    learns = any("unembed/" in path for path in chosen) or (
        any("embed/embedding" in path for path in chosen) and not _has_unembedding(architecture)
    )
    return Work(once, once * (learning + learns))


def _has_unembedding(architecture: Architecture) -> bool:
    return any("unembed/" in path for path in tree.flatten(architecture.abstract))
