"""Datasets whose gradients point the same way: copies of one another, as far as a split by conflict can see."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy
from jaxtyping import Float, Int, Int32

from merit_jax.core.types import Array

SAME = 1e-6
"""Distance of a cosine from 1 up to which two gradients count as the same; cosines are exact to 1e-6."""

PROJECTED = 8
"""Coordinates by which neighbours are searched for."""


def duplicates(C: Float[Array, "t t"]) -> Int32[np.ndarray, " t"]:
    """Finds datasets whose gradients have a cosine of at least 1 − 1e-6.

    Args:
        C: Cosines of the datasets' gradients.

    Returns:
        For each dataset the index of the first one that it repeats; its own if there is none before it.

    Examples:
        >>> C = np.array([[1, 0.2, 1], [0.2, 1, 0.2], [1, 0.2, 1]], np.float32)
        >>> duplicates(C).tolist()
        [0, 1, 0]
    """
    C = np.asarray(C)
    return _first_of_each(len(C), lambda i: np.flatnonzero(C[i] >= 1 - SAME))


def duplicates_of_rows(X: Float[Array, "t d"]) -> Int32[np.ndarray, " t"]:
    """Finds the `duplicates` of `C = X Xᵀ` without forming C, in O(T) memory besides the rows.

    Rows that near each other stay near under any orthogonal projection, so those to be compared are found by a few coordinates
    along random directions.

    Args:
        X: Unit rows.

    Examples:
        >>> duplicates_of_rows(np.array([[1, 0], [0, 1], [1, 0]], np.float32)).tolist()
        [0, 1, 0]
    """
    X = np.asarray(X, np.float32)
    count = min(PROJECTED, X.shape[1])
    directions = np.linalg.qr(np.random.default_rng(0).standard_normal((X.shape[1], count)))[0]
    places = X @ directions.astype(np.float32)
    tree, radius = scipy.spatial.KDTree(places), 1.1 * np.sqrt(2 * SAME)

    def same(i: int) -> np.ndarray:
        near = np.sort(np.array(tree.query_ball_point(places[i], radius), np.int64))
        return near[X[near] @ X[i] >= 1 - SAME]

    return _first_of_each(len(X), same)


def repeated(first: Int[Array, " t"] | Sequence[int], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Lists the names of the datasets that repeat each other, from the result of `duplicates`.

    Examples:
        >>> repeated([0, 1, 0, 1, 4], ["a", "b", "c", "d", "e"])
        [('a', 'c'), ('b', 'd')]
    """
    members: dict[int, list[str]] = {}
    for name, index in zip(names, first, strict=True):
        members.setdefault(int(index), []).append(name)
    return [tuple(group) for group in members.values() if len(group) > 1]


def _first_of_each(datasets: int, same: Callable[[int], np.ndarray]) -> Int32[np.ndarray, " t"]:
    """Assigns every dataset to the first one that `same` gives it to."""
    result = np.full(datasets, -1, np.int32)
    for i in range(datasets):
        if result[i] < 0:
            others = same(i)
            result[others[result[others] < 0]] = i
            result[i] = i
    return result
