"""A mask of the attention heads that stay, as an attention with fewer heads that computes the same."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped


class SmallerHeads(NamedTuple):
    """The heads of an attention of which some are removed: every layer has the same number.

    Attributes:
        query: Former place of each query head; -1 for a filler, whose weights are zero.
        key: Former place of each key and value head; likewise.
    """

    query: Int[np.ndarray, "layers heads"]
    key: Int[np.ndarray, "layers groups"]


def smaller_heads(
    kept: Bool[np.ndarray, "layers heads"], groups: int, possible: Callable[[int], bool] = lambda heads: True
) -> SmallerHeads:
    """Finds the smallest uniform shape into which the heads of every layer fit, and their places in it.

    A key and value head stays where one of its query heads does, and all serve the same number of query heads.

    Args:
        kept: True for the query heads that stay.
        groups: Key and value heads of a layer.
        possible: Number of query heads -> whether a layer may have it; the present number is taken whatever it says.

    Examples:
        >>> found = smaller_heads(np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0]], bool), groups=3)
        >>> found.query.tolist(), found.key.tolist()
        ([[0, 1, 3, -1], [2, 3, -1, -1]], [[0, 1], [1, -1]])
    """
    grouped = kept.reshape(len(kept), groups, -1)
    used, most = np.asarray(grouped.any(axis=2)), grouped.shape[2]
    least = max(1, used.sum(axis=1).max()), max(1, grouped.sum(axis=2).max())
    shapes = [(g, n) for g in range(least[0], groups + 1) for n in range(least[1], most + 1) if possible(g * n)]
    size, shared = min(shapes, key=lambda shape: (shape[0] * (shape[1] + 1), shape), default=(groups, most))
    query, key = np.full((len(kept), size, shared), -1), np.full((len(kept), size), -1)
    for layer in range(len(kept)):
        for new, old in enumerate(np.flatnonzero(used[layer])):
            heads = np.flatnonzero(grouped[layer, old])
            key[layer, new], query[layer, new, : len(heads)] = old, old * most + heads
    return SmallerHeads(query.reshape(len(kept), -1), key)


def of_heads(
    leaf: Shaped[np.ndarray, "layers *shape"], places: Int[np.ndarray, "layers heads"], axis: int, head_dim: int
) -> Shaped[np.ndarray, "layers *smaller"]:
    """Returns a stacked leaf with the parts of some heads, and zeros for fillers.

    Args:
        leaf: A kernel or bias of the layers.
        places: Former place of each head, -1 for a filler.
        axis: Axis that has the heads, side by side, each `head_dim` numbers.
        head_dim: As above.

    Examples:
        >>> of_heads(np.arange(6)[None], np.array([[2, -1]]), axis=1, head_dim=2).tolist()
        [[4, 5, 0, 0]]
    """
    by_head = np.moveaxis(leaf.reshape(*leaf.shape[:axis], -1, head_dim, *leaf.shape[axis + 1 :]), axis, 1)
    found = np.zeros((len(leaf), places.shape[1], *by_head.shape[2:]), leaf.dtype)
    for layer, of_layer in enumerate(places):
        found[layer, of_layer >= 0] = by_head[layer, of_layer[of_layer >= 0]]
    return np.moveaxis(found, 1, axis).reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 1 :])


def without_output(
    kernel: Shaped[np.ndarray, "layers width embed"], kept: Bool[np.ndarray, "ran heads"]
) -> Shaped[np.ndarray, "layers width embed"]:
    """Returns an output projection whose rows of removed heads are zero, in the first `ran` of its layers."""
    found = kernel.copy()
    by_head = found.reshape(len(kernel), kept.shape[1], -1, kernel.shape[2])
    by_head[: len(kept)][~kept] = 0
    return found
