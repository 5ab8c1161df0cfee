"""Principal axes of a similarity matrix (MERIT Alg. 1, step 2), from the matrix or from the rows it is made of."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array

SIGN_TOLERANCE = 1e-4
"""Relative difference in magnitude below which two scores count as a tie when an axis gets its sign."""

CENTRINGS = ("columns", "double")
"""Means that are subtracted before the principal axes are taken: of columns, or of columns and rows."""

EPS = float(np.finfo(np.float32).eps)
"""Distance from 1 to the next float32."""

FEW = 2048
"""Datasets up to which all singular vectors are computed; of more, only the leading ones, by Lanczos iterations."""

TOLERANCE = 1e-4
"""Tolerance of those iterations. The error of an axis is near its square, which is that of products in float32."""


class PrincipalAxes(NamedTuple):
    """The leading principal components of a similarity matrix.

    Attributes:
        scores: z_t, the place of dataset t along each axis; zero along an axis that does not exist.
        explained: Fraction of the total variance along each axis; zero for one that does not exist.
        components: The axes themselves, orthonormal columns; zero for one that does not exist.
    """

    scores: Float[Array, "t r"]
    explained: Float[Array, " r"]
    components: Float[Array, "t r"]


class _Centred(NamedTuple):
    """The centred similarity matrix M as an operator.

    Attributes:
        size: T.
        product: v -> M v.
        transposed: u -> Mᵀ u.
        total: ‖M‖_F² for columns; for double centring, where M has the squared lengths of the axes, its trace.
    """

    size: int
    product: Callable[[np.ndarray], np.ndarray]
    transposed: Callable[[np.ndarray], np.ndarray]
    total: float


def principal_axes(C: Float[Array, "t t"], rank: int, centring: str = "columns") -> PrincipalAxes:
    """Computes the leading principal axes of a similarity matrix (MERIT Alg. 1, step 2).

    "columns", the paper's: `C − 1 c̄ᵀ = U S Vᵀ`, scores `z = U_r S_r`. "double" (MERIT App. F.3), with `J = I − 11ᵀ/T`:
    `J C J = U S Uᵀ`, scores `z = U_r S_r^½`, which are the principal components of the (unit) gradients that C compares.
    Each axis's sign makes its score of largest magnitude positive; of several such scores (equal to within 1e-4) the first
    decides, so rounding cannot flip an axis. Of axes of equal length, every rotation is as good: LAPACK's is taken.

    T datasets have at most T − 1 axes, and fewer where gradients repeat or depend on each other (an axis exists if it is longer
    than rounding makes it). Scores along the others are zero: there all datasets tie, and `median_split` says how it cuts ties.

    Args:
        C: Similarity matrix, its entries of order one.
        rank: Number of axes, r, 1 or more.
        centring: "columns" or "double".

    Raises:
        ValueError: `rank` is below 1, or `centring` is unknown.

    Examples:
        Two pairs of datasets, alike within a pair and opposed between pairs:

        >>> C = np.array([[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]], np.float32)
        >>> axes = principal_axes(C, rank=1)
        >>> [round(float(z), 3) for z in axes.scores[:, 0]], round(float(axes.explained[0]), 3)
        ([2.0, 2.0, -2.0, -2.0], 1.0)
        >>> principal_axes(C, rank=2).explained.round(3).tolist()
        [1.0, 0.0]
    """
    _check(rank, centring)
    if len(C) > FEW:
        return _leading(_centred_matrix(np.asarray(C, np.float32), centring), rank, centring)
    C = jnp.asarray(C, jnp.float32)
    centred = C - C.mean(axis=0)
    if centring == "double":
        centred = centred - centred.mean(axis=1, keepdims=True)
    U, S, Vt = jnp.linalg.svd(centred, full_matrices=False)
    floor = max(float(S[0]), 1) * max(len(C) * EPS, _rounding(len(C)))
    lengths = _lengths(S, centring)
    exist = min(rank, int(jnp.sum(floor < S)))
    return _axes(U[:, :exist], lengths[:exist], Vt[:exist].T, jnp.sum(lengths**2), rank)


def axes_of_rows(X: Float[Array, "t d"], rank: int, centring: str = "columns") -> PrincipalAxes:
    """Computes `principal_axes` of `C = X Xᵀ` without forming C, in memory and time that grow with T d and not with T².

    With the rows centred, `A = X − 1 x̄ᵀ`, the centred matrix is `A Xᵀ` (columns) or `A Aᵀ` (double), so its products with
    vectors are two products with A. Its Frobenius norm, which the explained share needs, is exact:
    `‖A Xᵀ‖² = ‖AᵀA‖² + T ‖A x̄‖²`, from the d × d matrix `AᵀA`, or, where T is smaller, the T × T one.

    Args:
        X: The rows that C compares, unit rows for cosines.
        rank: Number of axes, r.
        centring: "columns" or "double".

    Raises:
        ValueError: As for `principal_axes`.

    Examples:
        >>> X = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], np.float32)
        >>> [round(float(z), 3) for z in axes_of_rows(X, rank=1).scores[:, 0]]
        [2.0, 2.0, -2.0, -2.0]
    """
    _check(rank, centring)
    return _leading(_centred_rows(np.asarray(X, np.float32), centring), rank, centring)


def _centred_matrix(C: Float[np.ndarray, "t t"], centring: str) -> _Centred:
    M = C - C.mean(axis=0, dtype=np.float64).astype(np.float32)
    if centring == "double":
        M -= M.mean(axis=1, dtype=np.float64).astype(np.float32)[:, None]
    total = np.trace(M, dtype=np.float64) if centring == "double" else _square(M)
    return _Centred(len(M), lambda v: M @ v, lambda u: M.T @ u, float(total))


def _centred_rows(X: Float[np.ndarray, "t d"], centring: str) -> _Centred:
    mean = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    A = X - mean
    if centring == "double":

        def product(v: np.ndarray) -> np.ndarray:
            return A @ (A.T @ v)

        return _Centred(len(A), product, product, _square(A))

    def forward(v: np.ndarray) -> np.ndarray:
        return A @ (A.T @ v + mean * v.sum())

    def transposed(u: np.ndarray) -> np.ndarray:
        inner = A.T @ u
        return A @ inner + mean @ inner

    smaller = A.T @ A if A.shape[1] < len(A) else A @ A.T
    return _Centred(len(A), forward, transposed, _square(smaller) + len(A) * _square(A @ mean))


def _leading(M: _Centred, rank: int, centring: str) -> PrincipalAxes:
    """The leading axes by Lanczos iterations (ARPACK), whose vectors are float64 and whose products are float32."""

    def flat(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda v: function(np.ravel(v).astype(np.float32)).astype(np.float64)

    rounding = _rounding(M.size)
    count = min(rank, M.size - 1)
    if not count or (M.total if centring == "double" else np.sqrt(M.total)) <= rounding:
        none = jnp.zeros((M.size, 0))
        return _axes(none, none[0], none, jnp.float32(M.total), rank)
    from scipy.sparse.linalg import LinearOperator, svds  # here, as importing it takes half a second

    operator = LinearOperator((M.size, M.size), flat(M.product), flat(M.transposed), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(M.size)
    U, S, Vt = svds(operator, count, tol=TOLERANCE, v0=start)
    exist = max(S.max(), 1) * rounding < S[::-1]
    U, S, V = (jnp.asarray(part[..., ::-1][..., exist], jnp.float32) for part in (U, S, Vt.T))
    return _axes(U, _lengths(S, centring), V, jnp.float32(M.total), rank)


def _axes(
    U: Float[Array, "t k"], lengths: Float[Array, " k"], V: Float[Array, "t k"], total: Array, rank: int
) -> PrincipalAxes:
    """Scores with their signs, and shares of the variance, of the k axes that exist; zeros for the rest of `rank`."""
    scores = U * lengths
    sign = _signs(scores)
    missing = rank - len(lengths)
    scores, components = (jnp.pad(part * sign, ((0, 0), (0, missing))) for part in (scores, V))
    return PrincipalAxes(scores, jnp.pad(lengths**2 / total, (0, missing)), components)


def _lengths(S: Float[Array, " k"], centring: str) -> Float[Array, " k"]:
    """Length of the scores along each axis, from the singular values of the centred matrix."""
    return jnp.sqrt(S) if centring == "double" else S


def _signs(scores: Float[Array, "t r"]) -> Float[Array, " r"]:
    """±1 per axis: the sign of the first score whose magnitude is the largest up to rounding."""
    size = jnp.abs(scores)
    first = jnp.argmax(size >= (1 - SIGN_TOLERANCE) * size.max(axis=0), axis=0)
    return jnp.sign(jnp.take_along_axis(scores, first[None], axis=0)[0])


def _rounding(datasets: int) -> float:
    """Singular values that rounding alone gives: entries of C, of order one, are off by up to some 8 units in the last place."""
    return float(8 * np.sqrt(datasets) * EPS)


def _square(A: Float[np.ndarray, "*n"]) -> float:
    """‖A‖_F², summed in float64 over rows."""
    return float(np.sum(np.vecdot(A, A), dtype=np.float64))


def _check(rank: int, centring: str) -> None:
    if centring not in CENTRINGS:
        raise ValueError(f"unknown centring {centring!r}; known: {', '.join(CENTRINGS)}")
    if rank < 1:
        raise ValueError(f"{rank} principal axes requested; ask for 1 or more")
