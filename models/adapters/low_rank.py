"""The arithmetic of low-rank updates: kernels with an update written into them, sums of updates, and truncation by SVD."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class LowRank(NamedTuple):
    """An update `A B` of a kernel [*layers, in, out]; its scale is in B.

    Attributes:
        a: A.
        b: B.
    """

    a: Float[np.ndarray, "*layers in rank"]
    b: Float[np.ndarray, "*layers rank out"]

    @property
    def rank(self) -> int:
        """The inner width of the product."""
        return self.a.shape[-1]


def fold(
    kernel: Float[np.ndarray, "*layers in out"],
    update: LowRank,
    magnitude: Float[np.ndarray, "*layers out"] | None = None,
) -> Float[np.ndarray, "*layers in out"]:
    """Writes an update into a kernel: `W + A B`, with its columns scaled to the lengths `magnitude` where there are some (DoRA).

    Examples:
        >>> fold(np.eye(2), LowRank(np.array([[0.0], [1.0]]), np.array([[3.0, 0.0]]))).tolist()
        [[1.0, 0.0], [3.0, 1.0]]
        >>> fold(np.diag([2.0, 4.0]), LowRank(np.zeros((2, 1)), np.zeros((1, 2))), np.array([1.0, 8.0])).tolist()
        [[1.0, 0.0], [0.0, 8.0]]
    """
    moved = kernel + update.a @ update.b
    if magnitude is not None:
        moved = moved * (magnitude / column_lengths(moved))[..., None, :]
    return moved.astype(kernel.dtype, copy=False)


def column_lengths(kernel: Float[np.ndarray, "*layers in out"]) -> Float[np.ndarray, "*layers out"]:
    """Returns the Euclidean length of each column.

    Examples:
        >>> column_lengths(np.array([[3.0, 0.0], [4.0, 1.0]])).tolist()
        [5.0, 1.0]
    """
    return np.sqrt(np.square(kernel).sum(axis=-2))


def weighted_sum(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """Returns `Σ_k w_k A_k B_k` as one update of rank `Σ_k r_k`: exact, where an average of the A and of the B is not.

    Examples:
        >>> one = LowRank(np.array([[1.0], [0.0]]), np.array([[1.0, 0.0]]))
        >>> other = LowRank(np.array([[0.0], [1.0]]), np.array([[0.0, 1.0]]))
        >>> total = weighted_sum([one, other], [0.25, 0.75])
        >>> (total.a @ total.b).tolist()
        [[0.25, 0.0], [0.0, 0.75]]
    """
    scaled = [np.float32(weight) * update.b for update, weight in zip(updates, weights, strict=True)]
    return LowRank(np.concatenate([update.a for update in updates], axis=-1), np.concatenate(scaled, axis=-2))


class Truncation(NamedTuple):
    """An update of a lower rank, the nearest by the sum of squares.

    Attributes:
        update: The update.
        lost: Sum of squares of what was left out of `A B`.
        whole: Sum of squares of `A B`.
    """

    update: LowRank
    lost: float
    whole: float


def truncate(update: LowRank, rank: int) -> Truncation:
    """Returns the update of a rank that is nearest to `A B`, by a singular value decomposition that never forms the product.

    With `A = Q_a R_a` and `Bᵀ = Q_b R_b`, the singular values of `A B` are those of `R_a R_bᵀ`. In float64.

    Args:
        update: The update.
        rank: Its rank at most.

    Examples:
        >>> update = LowRank(np.diag([3.0, 1.0]), np.eye(2))
        >>> found = truncate(update, 1)
        >>> float(found.lost / found.whole), abs(found.update.a @ found.update.b).round(6).tolist()
        (0.1, [[3.0, 0.0], [0.0, 0.0]])
    """
    wide_a, wide_b = update.a.astype(np.float64), update.b.astype(np.float64)
    q_a, r_a = np.linalg.qr(wide_a)
    q_b, r_b = np.linalg.qr(np.swapaxes(wide_b, -1, -2))
    u, values, v = np.linalg.svd(r_a @ np.swapaxes(r_b, -1, -2), full_matrices=False)
    kept, root = min(rank, values.shape[-1]), np.sqrt(values)
    a = (q_a @ u)[..., :kept] * root[..., None, :kept]
    b = root[..., :kept, None] * (v @ np.swapaxes(q_b, -1, -2))[..., :kept, :]
    square = np.square(values)
    found = LowRank(a.astype(update.a.dtype), b.astype(update.b.dtype))
    return Truncation(found, float(square[..., kept:].sum()), float(square.sum()))
