"""Agreement of the datasets' gradients, corrected for the noise of their estimates."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array


class GradientGram(NamedTuple):
    """Inner products of the datasets' gradients without the noise of their estimates.

    An estimate `ĝ_t = g_t + ε_t` has independent noise, so `E⟨ĝ_s, ĝ_t⟩ = ⟨g_s, g_t⟩` for s ≠ t, and
    `|g_t|² = R_t E|ĝ_t|²` with the reliability R_t, the cosine to expect between two estimates of the same size.

    Attributes:
        product: V f64[T, k] -> C V, with the cosines C of the estimates.
        norms: |ĝ_t|.
        reliability: R_t, from 0 to 1.
    """

    product: Callable[[np.ndarray], np.ndarray]
    norms: Float[np.ndarray, " t"]
    reliability: Float[np.ndarray, " t"]

    @property
    def squares(self) -> Float[np.ndarray, " t"]:
        """|g_t|²."""
        return self.reliability * self.norms**2

    def times(self, V: Float[Array, "t k"]) -> Float[np.ndarray, "t k"]:
        """Multiplies vectors by the matrix of `⟨g_s, g_t⟩`."""
        D = self.norms[:, None]
        return D * self.product(D * V) - (self.norms**2 - self.squares)[:, None] * V

    def inner(self, A: Float[Array, "k t"]) -> Float[np.ndarray, "k k"]:
        """Returns the inner products of the mixtures `Σ_t a_kt g_t`."""
        A = np.asarray(A, np.float64)
        return A @ self.times(A.T)


class Sharing(NamedTuple):
    """Direction that the datasets' gradients have in common.

    Attributes:
        estimated: Mean cosine of two datasets' gradients, as estimated.
        shared: The same without noise: `Σ C_st / Σ √(R_s R_t)` over the pairs (Spearman's disattenuation); NaN where no gradient
            is reliable at all.
        error: Its jackknife standard error over datasets; NaN for fewer than three.
        with_others: Mean cosine of each dataset's gradient with the others', without noise; NaN where it has no reliability.
        with_mixture: Cosine of each with the gradient of the whole mixture, without noise; NaN likewise.
    """

    estimated: float
    shared: float
    error: float
    with_others: Float[np.ndarray, " t"]
    with_mixture: Float[np.ndarray, " t"]


def measure_sharing(gram: GradientGram, weights: Float[Array, " t"]) -> Sharing:
    """Measures how much of the gradients' direction is common to the datasets.

    Args:
        gram: Of two datasets at least.
        weights: Share of each dataset in the mixture's gradient `Σ_t w_t g_t`.

    Raises:
        ValueError: There is one dataset only.

    Examples:
        Two gradients at cosine 0.32 whose reliability is 0.64 are at 0.5 without noise:

        >>> C = np.array([[1.0, 0.32], [0.32, 1.0]])
        >>> gram = GradientGram(lambda V: C @ V, np.ones(2), np.full(2, 0.64))
        >>> round(measure_sharing(gram, np.array([0.5, 0.5])).shared, 3)
        0.5
    """
    count, root = len(gram.norms), np.sqrt(gram.reliability)
    if count < 2:
        raise ValueError("the mixture has one dataset: there is nothing to divide by dataset, and no cosine to measure")
    rows = gram.product(np.ones((count, 1)))[:, 0] - 1
    possible = root * (root.sum() - root)
    without = _ratio(rows.sum() - 2 * rows, possible.sum() - 2 * possible)
    w = np.asarray(weights, np.float64) / np.sum(weights)
    along = gram.times(w[:, None])[:, 0]
    return Sharing(
        float(rows.mean() / (count - 1)),
        float(_ratio(rows.sum(), possible.sum())),
        float(np.sqrt((count - 1) * without.var())) if count > 2 else float("nan"),
        np.clip(_ratio(rows, possible), -1, 1),
        np.clip(_ratio(along, np.sqrt(np.maximum(gram.squares * (w @ along), 0))), -1, 1),
    )


def branch_agreement(gram: GradientGram, tokens: Float[Array, "k t"]) -> float:
    """Returns the mean cosine, over pairs of branches, of the gradients of their data; 1 for i.i.d. slices.

    Args:
        gram: Of the datasets.
        tokens: Tokens of each dataset in each branch.

    Returns:
        The mean; 1 for one branch, NaN where a branch's gradient cannot be told from noise.

    Examples:
        >>> gram = GradientGram(lambda V: V, np.ones(2), np.ones(2))
        >>> [round(branch_agreement(gram, tokens), 3) for tokens in (np.eye(2), np.ones((2, 2)))]
        [0.0, 1.0]
    """
    tokens = np.asarray(tokens, np.float64)
    if len(tokens) < 2:
        return 1.0
    inner = gram.inner(tokens / tokens.sum(axis=1, keepdims=True))
    lengths = np.sqrt(np.maximum(np.diag(inner), 0))
    cosines = _ratio(inner, np.outer(lengths, lengths))
    return float(np.clip(cosines[~np.eye(len(inner), dtype=bool)].mean(), -1, 1))


def _ratio(above: np.ndarray | np.floating, below: np.ndarray | np.floating) -> np.ndarray:
    """The quotient; NaN where the divisor is not positive."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 1e-12)
