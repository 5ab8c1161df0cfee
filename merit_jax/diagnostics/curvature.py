"""Hessian-PCA alignment: conflict directions against those in which the loss curves most (MERIT App. F.3)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from merit_jax import conflict
from merit_jax.core import tree
from merit_jax.core.types import Array, Leaves
from merit_jax.diagnostics.lanczos import Basis, Operator, gaussian, lanczos, overlaps, ritz


class Chance(NamedTuple):
    """The mean top-1 |cos| of random directions, and how far above it the one found is.

    Attributes:
        mean: Its mean over the draws.
        std: Its standard deviation.
        draws: Sets of random directions.
        z_score: `(found − mean) / std`.
        p_value: One-sided, `(1 + draws no smaller than found) / (1 + draws)`.
    """

    mean: float
    std: float
    draws: int
    z_score: float
    p_value: float


class Alignment(NamedTuple):
    """Overlap of one subspace with another, next to that of random directions.

    Attributes:
        cosines: |cos| between conflict direction i and Hessian eigenvector j.
        angles: Principal angles between the two subspaces, degrees, smallest first.
        largest: The largest |cos|.
        mean_top: Mean over directions of each one's largest |cos|.
        gaussian: Against as many Gaussian directions in R^d, the paper's null hypothesis. Nearly everything in the span of
            gradients beats it.
        span: Against as many random orthonormal directions in the span of the same gradients: whether the directions of
            conflict are sharper than others that the gradients have.
    """

    cosines: Float[np.ndarray, "r k"]
    angles: Float[np.ndarray, " a"]
    largest: float
    mean_top: float
    gaussian: Chance
    span: Chance


class HessianAlignment(NamedTuple):
    """Result of the alignment protocol.

    Attributes:
        eigenvalues: Largest eigenvalues of the Hessian.
        residuals: Largest distance of each from a true one, but for rounding (see `lanczos.Ritz`).
        dimension: Parameters varied, d.
        raw: Alignment of the principal directions of the gradients.
        centred: The same after subtracting their mean.
    """

    eigenvalues: Float[np.ndarray, " k"]
    residuals: Float[np.ndarray, " k"]
    dimension: int
    raw: Alignment
    centred: Alignment


def quadrant_tasks(C: Float[Array, "t t"]) -> Int[np.ndarray, " n"]:
    """Chooses datasets that represent the conflict: in each sign quadrant of (PC1, PC2), the one farthest from the origin.

    The axes are those of the double-centred similarity. A quadrant without a dataset has no part, so there may be fewer than
    four; ties go to the lowest index.

    Returns:
        Indices, by quadrant: (+, +), (+, −), (−, +), (−, −).

    Raises:
        ValueError: The similarity has fewer than two principal axes.
    """
    axes = conflict.principal_axes(C, 2, "double")
    if not np.all(axes.explained):
        raise ValueError(
            f"the similarity of these {len(C)} datasets has {np.count_nonzero(axes.explained)} principal axes, and quadrants "
            "need 2; give three datasets or more that differ"
        )
    scores = np.asarray(axes.scores)
    distance = np.linalg.norm(scores, axis=1)
    quadrant = 2 * (scores[:, 0] < 0) + (scores[:, 1] < 0)
    return np.array([np.argmax(np.where(quadrant == q, distance, -1)) for q in range(4) if (quadrant == q).any()])


def hessian_alignment(
    product: Operator,
    gradients: Sequence[Leaves],
    *,
    iterations: int = 50,
    eigenvectors: int = 10,
    draws: int = 10_000,
    seed: int = 0,
    basis: Basis | None = None,
) -> HessianAlignment:
    """Measures alignment of the leading conflict directions with the leading Hessian eigenvectors (MERIT App. F.3).

    The conflict directions are the top three principal directions of the gradients, and never more than one fewer than
    there are gradients. No eigenvector is ever formed, only its products with the gradients.

    Costs `iterations` Hessian-vector products, one pass over the basis beyond Lanczos' own, and memory for the gradients
    and three trees more, besides the basis.

    Args:
        product: v -> ∇²L(θ) v on the examples of all tasks together, see `hessian.product`.
        gradients: One per task at the same θ, two or more; the paper's four, see `quadrant_tasks`.
        iterations: Of Lanczos.
        eigenvectors: Their number, counted from the largest eigenvalue.
        draws: Sets of random directions of each null hypothesis.
        seed: Of Lanczos' start vector and of those directions.
        basis: Keeps Lanczos' vectors, see `lanczos.Basis`.

    Raises:
        ValueError: Fewer than two gradients, or they span too few directions.
    """
    if len(gradients) < 2:
        raise ValueError(f"conflict is between two tasks or more; got the gradients of {len(gradients)}")
    dimension = sum(leaf.size for leaf in gradients[0].values())
    K = np.array([[float(tree.dot(a, b)) for b in gradients] for a in gradients])
    krylov = lanczos(product, gaussian(gradients[0], seed), iterations, basis)
    pairs = ritz(krylov, eigenvectors)
    products = pairs.weights.T @ overlaps(krylov.basis, list(gradients))
    span = (products @ _orthonormal(K)[0]).T
    aligned = [
        alignment((products @ conflict_directions(K, centred=centred)).T, span, dimension, draws=draws, seed=seed)
        for centred in (False, True)
    ]
    return HessianAlignment(pairs.values, pairs.residuals, dimension, *aligned)


def conflict_directions(K: Float[np.ndarray, "n n"], *, centred: bool, count: int = 3) -> Float[np.ndarray, "n r"]:
    """Computes leading principal directions of gradients, as weights: column i makes the unit vector `Σ_t a_ti g_t`.

    With `K = G Gᵀ`, or `J K J` (`J = I − 11ᵀ/n`), `K v = λ v` gives `a = v / √λ`, and the directions are orthonormal.

    Args:
        K: ⟨g_i, g_j⟩.
        centred: Whether the mean gradient is subtracted.
        count: At most this many, and at most n − 1.

    Raises:
        ValueError: The gradients span fewer directions.
    """
    J = np.eye(len(K)) - 1 / len(K)
    weights, values = _orthonormal(J @ K @ J if centred else K, np.trace(K))
    count = min(count, len(K) - 1)
    if len(values) < count:
        raise ValueError(
            f"the {len(K)} gradients span fewer than {count} directions (eigenvalues {values}); choose other tasks"
        )
    return weights[:, :count]


def _orthonormal(
    K: Float[np.ndarray, "n n"], scale: float | None = None
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, " m"]]:
    """Weights of the principal directions, m ≤ n of them, and their eigenvalues, largest first; those by rounding left out."""
    values, vectors = np.linalg.eigh(K)
    exist = values > 1e-6 * (np.trace(K) if scale is None else scale)  # squared rounding of float32 is far below
    values, vectors = values[exist][::-1], vectors[:, exist][:, ::-1]
    return vectors / np.sqrt(values), values


def alignment(
    cosines: Float[np.ndarray, "r k"],
    span: Float[np.ndarray, "m k"],
    dimension: int,
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Alignment:
    """Computes principal angles, and two tests against chance, from cosines with k orthonormal eigenvectors.

    The paper's null hypothesis is r independent Gaussian vectors in d dimensions. A Gaussian vector's cosines with k
    orthonormal ones are `a / √(|a|² + χ²_{d−k})`, a ∈ R^k standard normal, so it is sampled without drawing a vector of d
    entries. The other is r orthonormal directions in the span of the gradients, `Qᵀ span` with Q ∈ R^{m×r} uniform (Haar).

    Args:
        cosines: Of r orthonormal directions.
        span: Of an orthonormal basis of the gradients' span, in which those directions are; m ≥ r.
        dimension: d.
        draws: Sets of random directions of each null hypothesis.
        seed: Of these.

    Examples:
        >>> span = np.array([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]])
        >>> found = alignment(span[:2], span, dimension=1000)
        >>> [round(float(angle)) for angle in found.angles], found.mean_top
        ([0, 60], 0.75)
        >>> found.gaussian.z_score > 10 > found.span.z_score > 0
        True
    """
    size = np.abs(cosines)
    inside = np.clip(np.linalg.svd(cosines, compute_uv=False), 0, 1)
    directions, eigenvectors = cosines.shape
    top = float(size.max(axis=1).mean())
    gaussian = _random_top(draws, directions, eigenvectors, dimension, seed)
    inner = _random_top_in_span(draws, directions, span, seed)
    angles = np.degrees(np.arccos(inside))
    return Alignment(size, angles, float(size.max()), top, _chance(top, gaussian), _chance(top, inner))


def _chance(found: float, random: Float[np.ndarray, " draws"]) -> Chance:
    mean, std, draws = float(random.mean()), float(random.std(ddof=1)), len(random)
    z_score = (found - mean) / std if std > 0 else float("nan")
    return Chance(mean, std, draws, z_score, float(1 + np.sum(random >= found)) / (1 + draws))


def _random_top(draws: int, r: int, k: int, dimension: int, seed: int) -> Float[np.ndarray, " draws"]:
    """`mean_top` of r Gaussian directions against k fixed ones."""
    rng = np.random.default_rng(seed)
    inside = rng.standard_normal((draws, r, k)) ** 2
    outside = 2 * rng.standard_gamma((dimension - k) / 2, (draws, r))
    squares = inside.max(axis=-1) / (inside.sum(axis=-1) + outside)
    return np.sqrt(squares).mean(axis=1)


def _random_top_in_span(draws: int, r: int, span: Float[np.ndarray, "m k"], seed: int) -> Float[np.ndarray, " draws"]:
    """`mean_top` of r random orthonormal directions in a span."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((draws, len(span), r)))[0]
    return np.abs(Q.transpose(0, 2, 1) @ span).max(axis=2).mean(axis=1)
