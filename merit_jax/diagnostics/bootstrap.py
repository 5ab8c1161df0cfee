"""Cosines between means of resampled gradients, from the gradients' inner products alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

CHUNK = 2**20
"""Entries of every row that are multiplied at a time."""


def gram(rows: Sequence[Float[np.ndarray, " d"]]) -> Float[np.ndarray, "b b"]:
    """Computes ⟨g_i, g_j⟩ of every two rows, in float64, without a second copy of them.

    Examples:
        >>> gram([np.array([3.0, 4.0]), np.array([1.0, 0.0])]).tolist()
        [[25.0, 3.0], [3.0, 1.0]]
    """
    K = np.zeros((len(rows), len(rows)))
    for start in range(0, len(rows[0]), CHUNK):
        part = np.stack([row[start : start + CHUNK] for row in rows]).astype(np.float64)
        K += part @ part.T
    return K


def bootstrap_cosines(
    K: Float[np.ndarray, "b b"], count: int, draws: int, rng: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Draws cosines between the mean of `count` rows, with replacement, and the mean of all, from the rows' inner products K."""
    chosen = rng.integers(len(K), size=(draws, count))
    weights = np.zeros((draws, len(K)))
    np.add.at(weights, (np.arange(draws)[:, None], chosen), 1 / count)
    return _cosines(K, weights, np.full_like(weights, 1 / len(K)))


def split_half(K: Float[np.ndarray, "b b"], draws: int, rng: np.random.Generator) -> Float[np.ndarray, " draws"]:
    """Draws cosines between the means of two random disjoint halves of the rows (of an odd number, one is left out)."""
    half = len(K) // 2
    order = rng.permuted(np.tile(np.arange(len(K)), (draws, 1)), axis=1)
    weights = np.zeros((2, draws, len(K)))
    for side in range(2):
        np.put_along_axis(weights[side], order[:, side * half : (side + 1) * half], 1 / half, axis=1)
    return _cosines(K, weights[0], weights[1])


def spearman_brown(reliability: float, factor: float | np.ndarray) -> float | np.ndarray:
    """Predicts the reliability of `factor` times as many examples: `f ρ / (1 + (f − 1) ρ)`; 0 where ρ is not positive.

    Examples:
        >>> spearman_brown(0.5, 3.0)
        0.75
    """
    rho = max(reliability, 0.0)
    return factor * rho / (1 + (factor - 1) * rho)


def examples_needed(reliability: float, examples: int | float, target: float) -> float:
    """Returns the n at which the Spearman-Brown formula gives `target`, from the reliability of `examples`; infinite if ≤ 0.

    Examples:
        >>> examples_needed(0.5, examples=100, target=0.75)
        300.0
    """
    if reliability <= 0:
        return float("inf")
    return float(examples * target * (1 - reliability) / (reliability * (1 - target)))


def _cosines(
    K: Float[np.ndarray, "b b"], a: Float[np.ndarray, "draws b"], b: Float[np.ndarray, "draws b"]
) -> Float[np.ndarray, " draws"]:
    """Cosine between `a_i G` and `b_i G` for every i, with `K = G Gᵀ`."""
    inner = np.einsum("ib,bc,ic->i", a, K, b)
    return inner / np.sqrt(np.einsum("ib,bc,ic->i", a, K, a) * np.einsum("ib,bc,ic->i", b, K, b))
