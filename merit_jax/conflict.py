"""Conflict between datasets: cosine similarity of gradients and its principal axes (MERIT Alg. 1, steps 1 and 2)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.types import Array

BLOCK = 2**24
"""Entries of a host-side gradient matrix that are read and multiplied at a time (64 MiB in float32)."""

SIGN_TOLERANCE = 1e-4
"""Relative difference in magnitude below which two scores count as a tie when an axis gets its sign."""

CENTRINGS = ("columns", "double")
"""What is subtracted before the principal axes are taken: column means, or column and row means."""


class PrincipalAxes(NamedTuple):
    """The leading principal components of a similarity matrix.

    Attributes:
        scores: z_t, the place of dataset t along each axis.
        explained: Fraction of the total variance along each axis.
        components: The axes themselves, orthonormal columns.
    """

    scores: Float[Array, "t r"]
    explained: Float[Array, " r"]
    components: Float[Array, "t r"]


class _Scaled(NamedTuple):
    """Gradient rows and the largest magnitude in each: divided by it, no square over- or underflows."""

    rows: Float[Array, "t d"]
    largest: Float[np.ndarray, " t"]


def cosine_similarity(G: Float[Array, "t d"], names: Sequence[str] | None = None) -> Float[Array, "t t"]:
    """Cosine similarity of every pair of dataset gradients.

    `C_ij = ⟨g_i, g_j⟩ / (‖g_i‖ ‖g_j‖)` (MERIT Alg. 1, step 1), symmetric, its diagonal exactly 1.

    Args:
        G: One gradient per row; a memory-mapped matrix is read in column blocks, twice.
        names: Names of the datasets, for error messages.

    Raises:
        ValueError: A row is zero or not finite.
    """
    scaled = _scaled(G, names)
    C = _cosines(scaled, scaled)
    C = np.clip((C + C.T) / 2, -1, 1)
    np.fill_diagonal(C, 1)
    return jnp.asarray(C, jnp.float32)


def extend_similarity(
    C: Float[Array, "t t"],
    G_old: Float[Array, "t d"],
    G_new: Float[Array, "m d"],
    names: Sequence[str] | None = None,
) -> Float[Array, "t+m t+m"]:
    """The similarity matrix of a collection that grew by m datasets; only the new rows are computed, O(Tm).

    Args:
        C: Similarity of the old datasets; copied as it stands.
        G_old: Gradients of the old datasets.
        G_new: Gradients of the new ones, at the same parameters and with the same settings.
        names: Names of all datasets, old ones first, for error messages.

    Raises:
        ValueError: A row is zero or not finite.
    """
    old = len(G_old)
    cross = _cosines(
        _scaled(G_new, names[old:] if names else None, first=old), _scaled(G_old, names[:old] if names else None)
    )
    cross = jnp.asarray(np.clip(cross, -1, 1), jnp.float32)
    return jnp.block([[jnp.asarray(C, jnp.float32), cross.T], [cross, cosine_similarity(G_new)]])


def gram(C: Float[Array, "t t"], norms: Float[Array, " t"] | Sequence[float]) -> Float[Array, "t t"]:
    """`K_ij = ⟨g_i, g_j⟩ = C_ij ‖g_i‖ ‖g_j‖`, divided by the mean squared norm (MERIT Lemma 1, `K = D C D`).

    Args:
        C: Cosine similarity.
        norms: ‖g_t‖ of each dataset, positive.
    """
    D = np.asarray(norms, np.float64)
    D = D / np.sqrt(np.mean(D**2))
    return jnp.asarray(D[:, None] * np.asarray(C, np.float64) * D, jnp.float32)


def principal_axes(C: Float[Array, "t t"], rank: int, centring: str = "columns") -> PrincipalAxes:
    """The leading principal axes of a similarity matrix (MERIT Alg. 1, step 2).

    "columns", the paper's: `C − 1 c̄ᵀ = U S Vᵀ`, scores `z = U_r S_r`. "double" (MERIT App. F.3), with `J = I − 11ᵀ/T`:
    `J C J = U S Uᵀ`, scores `z = U_r S_r^½`, which are the principal components of the (unit) gradients that C compares.
    Each axis's sign makes its score of largest magnitude positive; of several such scores (equal to within 1e-4) the first
    decides, so rounding cannot flip an axis.

    Args:
        C: Similarity matrix, its entries of order one.
        rank: Number of axes, r.
        centring: "columns" or "double".

    Raises:
        ValueError: The centred matrix has fewer than `rank` axes of non-zero length, or `centring` is unknown.
    """
    if centring not in CENTRINGS:
        raise ValueError(f"unknown centring {centring!r}; known: {', '.join(CENTRINGS)}")
    C = jnp.asarray(C, jnp.float32)
    centred = C - C.mean(axis=0)
    if centring == "double":
        centred = centred - centred.mean(axis=1, keepdims=True)
    U, S, Vt = jnp.linalg.svd(centred, full_matrices=False)
    # Entries of C are of order one, so rounding alone gives singular values of this size.
    floor = jnp.maximum(S[0], 1) * len(C) * jnp.finfo(jnp.float32).eps
    exist = int(jnp.sum(floor < S))
    if not 1 <= rank <= exist:
        raise ValueError(
            f"rank {rank} asked for, but the similarity of these {len(C)} datasets has {exist} principal axes; "
            f"choose a rank in 1..{exist} or give more, and more different, datasets"
        )
    lengths = jnp.sqrt(S) if centring == "double" else S
    scores = U[:, :rank] * lengths[:rank]
    sign = _signs(scores)
    explained = lengths[:rank] ** 2 / jnp.sum(lengths**2)
    return PrincipalAxes(scores * sign, explained, Vt[:rank].T * sign)


def _signs(scores: Float[Array, "t r"]) -> Float[Array, " r"]:
    """±1 per axis: the sign of the first score whose magnitude is the largest up to rounding."""
    size = jnp.abs(scores)
    first = jnp.argmax(size >= (1 - SIGN_TOLERANCE) * size.max(axis=0), axis=0)
    return jnp.sign(jnp.take_along_axis(scores, first[None], axis=0)[0])


def _scaled(G: Float[Array, "t d"], names: Sequence[str] | None = None, first: int = 0) -> _Scaled:
    """Finds each row's largest magnitude; refuses rows that have no direction."""
    largest = np.zeros(len(G), np.float32)
    for block in _blocks(G):
        largest = np.maximum(largest, np.asarray(_largest(G[:, block])))
    bad = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
    if bad.size:
        listed = ", ".join(
            f"row {first + i}{f' ({names[i]})' if names else ''} is {'zero' if largest[i] == 0 else 'not finite'}"
            for i in bad
        )
        raise ValueError(
            f"a dataset gradient has no direction: {listed}. Expected finite rows with a non-zero entry; look for a "
            "dataset without supervised tokens, or a loss that overflows"
        )
    return _Scaled(G, largest)


def _cosines(a: _Scaled, b: _Scaled) -> Float[np.ndarray, "m t"]:
    """Cosines between the rows of two matrices: float32 products per column block, summed on the host in float64."""
    products, squares_a, squares_b = 0.0, 0.0, 0.0
    for block in _blocks(a.rows):
        parts = _products(a.rows[:, block], b.rows[:, block], a.largest, b.largest)
        inner, square_a, square_b = (np.asarray(part, np.float64) for part in parts)
        products, squares_a, squares_b = products + inner, squares_a + square_a, squares_b + square_b
    return products / np.sqrt(np.outer(squares_a, squares_b))


def _blocks(G: Float[Array, "t d"]) -> Iterator[slice]:
    """Column blocks: the whole of a device array, `BLOCK` entries at a time of one on the host or on disk."""
    width = G.shape[1] if isinstance(G, jax.Array) else max(1, BLOCK // max(1, len(G)))
    for start in range(0, G.shape[1], max(1, width)):
        yield slice(start, start + width)


@jax.jit
def _largest(G: Float[Array, "t d"]) -> Float[Array, " t"]:
    """Largest magnitude per row; NaN where the row has one."""
    return jnp.max(jnp.abs(G.astype(jnp.float32)), axis=1)


@jax.jit
def _products(
    A: Float[Array, "m d"], B: Float[Array, "t d"], a: Float[Array, " m"], b: Float[Array, " t"]
) -> tuple[Float[Array, "m t"], Float[Array, " m"], Float[Array, " t"]]:
    """`ÂB̂ᵀ` and the squared norms of the rows of `Â = A/a` and `B̂ = B/b`."""
    A, B = A.astype(jnp.float32) / a[:, None], B.astype(jnp.float32) / b[:, None]
    return jnp.matmul(A, B.T, precision="highest"), jnp.sum(A * A, axis=1), jnp.sum(B * B, axis=1)
