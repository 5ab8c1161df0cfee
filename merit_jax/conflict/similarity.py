"""Cosine similarity of gradient rows (MERIT Alg. 1, step 1)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from merit_jax.conflict.blocked_products import Row, Rows, inner_products, row_length, row_norms
from merit_jax.core.types import Array


class Cosines(NamedTuple):
    """Cosines of some rows with all rows.

    Attributes:
        values: Between −1 and 1; exactly 1 for a row with itself.
        norms: ‖g_t‖ of all rows, as measured.
    """

    values: Float[np.ndarray, "m t"]
    norms: Float[np.ndarray, " t"]


class UnitRows(NamedTuple):
    """Rows of length 1 in memory.

    Attributes:
        values: `g_t / ‖g_t‖`, float32.
        norms: ‖g_t‖.
    """

    values: Float[np.ndarray, "t d"]
    norms: Float[np.ndarray, " t"]


def cosine_similarity(G: Rows, names: Sequence[str] | None = None, *, mesh: Mesh | None = None) -> Float[Array, "s s"]:
    """Computes the cosine similarity of every pair of dataset gradients.

    `C_ij = ⟨g_i, g_j⟩ / (‖g_i‖ ‖g_j‖)` (MERIT Alg. 1, step 1), symmetric, its diagonal exactly 1, to 1e-6.

    Args:
        G: One gradient per row, read in blocks of coordinates: an array, a memory-mapped one, or a sequence of rows.
        names: Names of the datasets, for error messages.
        mesh: Devices that multiply, each its own coordinates; None: the host.

    Raises:
        ValueError: A row is zero or not finite.

    Examples:
        >>> G = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [-1, 0, 0, 0]], np.float32)
        >>> cosine_similarity(G).tolist()
        [[1.0, 0.5, -0.5], [0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    return jnp.asarray(cosines(G, names, mesh=mesh).values)


def extend_similarity(
    C: Float[Array, "t t"],
    G_old: Rows,
    G_new: Rows,
    names: Sequence[str] | None = None,
    *,
    mesh: Mesh | None = None,
) -> Float[Array, "n n"]:
    """Extends the similarity matrix of a collection that grew by m datasets; only the new rows are computed, O(Tm).

    Args:
        C: Similarity of the old datasets; copied as it stands.
        G_old: Gradients of the old datasets.
        G_new: Gradients of the new ones, at the same parameters and with the same settings.
        names: Names of all datasets, old ones first, for error messages.
        mesh: Devices that multiply; None: the host.

    Raises:
        ValueError: A row is zero or not finite.

    Examples:
        >>> old, new = np.eye(2, dtype=np.float32), np.array([[0.0, 5.0]], np.float32)
        >>> extend_similarity(cosine_similarity(old), old, new).tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    rows: list[Row] = [np.asarray(row) if isinstance(row, Array) else row for row in (*G_old, *G_new)]
    return jnp.asarray(extended(C, cosines(rows, names, first=len(G_old), mesh=mesh)))


def cosines(
    rows: Rows,
    names: Sequence[str] | None = None,
    *,
    norms: Sequence[float] | Float[np.ndarray, " t"] | None = None,
    first: int = 0,
    mesh: Mesh | None = None,
) -> Cosines:
    """Computes cosines of the rows from `first` on with all rows, and measures the norms of all.

    Args:
        rows: The gradients. Where `norms` are given, each coordinate is read once.
        names: Names of the datasets, for error messages.
        norms: ‖g_t‖ of each row, as recorded; None: they are computed first, in float64.
        first: Rows before it are not compared with each other.
        mesh: Devices that multiply; None: the host.

    Raises:
        ValueError: A row is zero or not finite, or its length is beyond float32 when divided by the norm given for it.
    """
    rows = np.asarray(rows) if isinstance(rows, Array) else rows
    lengths = row_norms(rows) if norms is None else np.asarray(norms, np.float64)
    _check_direction(lengths, names)
    found = inner_products(rows, lengths, first, mesh)
    _check_measured(rows, found.squares, lengths, names)
    measured = np.sqrt(found.squares)
    values = found.inner
    values /= measured[first:, None]
    values /= measured
    own = values[:, first:]
    values[:, first:] = (own + own.T) / 2
    np.fill_diagonal(values[:, first:], 1)
    return Cosines(np.clip(values, -1, 1, out=values).astype(np.float32), lengths * measured)


def extended(C: Float[Array, "t t"], new: Cosines) -> Float[np.ndarray, "n n"]:
    """Returns C with the rows and columns of new datasets, which come last."""
    m, total = new.values.shape
    old = total - m
    result = np.empty((total, total), np.float32)
    result[:old, :old] = C
    result[old:] = new.values
    result[:old, old:] = new.values[:, :old].T
    return result


def unit_rows(rows: Rows, names: Sequence[str] | None = None) -> UnitRows:
    """Reads the rows into memory, each divided by its norm.

    Raises:
        ValueError: A row is zero or not finite.

    Examples:
        >>> found = unit_rows(np.array([[1, 1, 1, 1], [0, 0, 0, 3]], np.float32))
        >>> found.values.tolist(), found.norms.tolist()
        ([[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]], [2.0, 3.0])
    """
    values, norms = np.empty((len(rows), row_length(rows)), np.float32), np.zeros(len(rows))
    for i, row in enumerate(rows):
        exact = np.asarray(row[:], np.float64)
        norms[i] = np.linalg.norm(exact)
        values[i] = exact / norms[i] if norms[i] and np.isfinite(norms[i]) else 0
    _check_direction(norms, names)
    return UnitRows(values, norms)


def gram(C: Float[Array, "t t"], norms: Float[Array, " t"] | Sequence[float]) -> Float[Array, "t t"]:
    """Returns `K_ij = ⟨g_i, g_j⟩ = C_ij ‖g_i‖ ‖g_j‖`, divided by the mean squared norm (MERIT Lemma 1, `K = D C D`).

    Args:
        C: Cosine similarity.
        norms: ‖g_t‖ of each dataset, positive.

    Examples:
        >>> K = gram(np.array([[1, 0.5], [0.5, 1]], np.float32), norms=[1.0, 7.0])
        >>> [[round(float(k), 3) for k in row] for row in K]
        [[0.04, 0.14], [0.14, 1.96]]
    """
    D = np.asarray(norms, np.float64)
    D = D / np.sqrt(np.mean(D**2))
    return jnp.asarray(D[:, None] * np.asarray(C, np.float64) * D, jnp.float32)


def _check_direction(norms: Float[np.ndarray, " t"], names: Sequence[str] | None) -> None:
    """Names the rows that have no direction."""
    bad = np.flatnonzero(~((norms > 0) & np.isfinite(norms))).tolist()
    if bad:
        listed = ", ".join(f"{_row(i, names)} is {'zero' if norms[i] == 0 else 'not finite'}" for i in bad)
        raise ValueError(
            f"a dataset gradient has no direction: {listed}. Expected finite rows with a non-zero entry; look for a "
            "dataset without supervised tokens, or a loss that overflows"
        )


def _check_measured(
    rows: Rows, squares: Float[np.ndarray, " t"], norms: Float[np.ndarray, " t"], names: Sequence[str] | None
) -> None:
    """Names the rows of which no length was measured: those without direction, or far from the norm given for them."""
    bad = np.flatnonzero(~((squares > 0) & np.isfinite(squares))).tolist()
    if bad:
        exact = np.ones(len(rows))
        exact[bad] = row_norms([rows[i] for i in bad])
        _check_direction(exact, names)
        listed = ", ".join(f"{_row(i, names)} has norm {exact[i]:.3g}, not {norms[i]:.3g}" for i in bad)
        raise ValueError(f"norms of gradients do not belong to them: {listed}; compute the gradients again")


def _row(i: int, names: Sequence[str] | None) -> str:
    return f"row {i}{f' ({names[i]})' if names else ''}"
