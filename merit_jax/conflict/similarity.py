"""Cosine similarity of gradient rows (MERIT Alg. 1, step 1)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from merit_jax.conflict import blocked_products, sharded
from merit_jax.conflict.rows import Row, Rows, entries
from merit_jax.core.types import Array


class Cosines(NamedTuple):
    """Cosines of some rows with all rows.

    Attributes:
        values: Between −1 and 1; exactly 1 for a row with itself.
        norms: ‖g_t‖ of all rows.
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
    """Cosine similarity of every pair of dataset gradients.

    `C_ij = ⟨g_i, g_j⟩ / (‖g_i‖ ‖g_j‖)` (MERIT Alg. 1, step 1), symmetric, its diagonal exactly 1, to 1e-6.

    Args:
        G: One gradient per row, read once and in blocks of coordinates: an array, a memory-mapped one, or a sequence of rows.
        names: Names of the datasets, for error messages.
        mesh: Devices that multiply, each its own coordinates; None: the host.

    Raises:
        ValueError: A row is zero or not finite.
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
    """The similarity matrix of a collection that grew by m datasets; only the new rows are computed, O(Tm).

    Args:
        C: Similarity of the old datasets; copied as it stands.
        G_old: Gradients of the old datasets.
        G_new: Gradients of the new ones, at the same parameters and with the same settings.
        names: Names of all datasets, old ones first, for error messages.
        mesh: Devices that multiply; None: the host.

    Raises:
        ValueError: A row is zero or not finite.
    """
    rows: list[Row] = [np.asarray(row) if isinstance(row, Array) else row for row in (*G_old, *G_new)]
    return jnp.asarray(extended(C, cosines(rows, names, first=len(G_old), mesh=mesh)))


def cosines(rows: Rows, names: Sequence[str] | None = None, *, first: int = 0, mesh: Mesh | None = None) -> Cosines:
    """Cosines of the rows from `first` on with all rows, and the norms of all, in one pass over the coordinates.

    Args:
        rows: The gradients.
        names: Names of the datasets, for error messages.
        first: Rows before it are not compared with each other.
        mesh: Devices that multiply; None: the host.

    Raises:
        ValueError: A row is zero or not finite.
    """
    rows = np.asarray(rows) if isinstance(rows, Array) else rows
    found = blocked_products.inner_products(rows, first) if mesh is None else sharded.inner_products(rows, mesh, first)
    _refuse(found.broken, found.squares == 0, names)
    lengths = np.sqrt(found.squares)
    values = found.inner
    values /= lengths[first:, None]
    values /= lengths
    own = values[:, first:]
    values[:, first:] = (own + own.T) / 2
    np.fill_diagonal(values[:, first:], 1)
    return Cosines(np.clip(values, -1, 1, out=values).astype(np.float32), np.ldexp(lengths, found.exponents))


def extended(C: Float[Array, "t t"], new: Cosines) -> Float[np.ndarray, "n n"]:
    """C with the rows and columns of new datasets, which come last."""
    m, total = new.values.shape
    old = total - m
    result = np.empty((total, total), np.float32)
    result[:old, :old] = C
    result[old:] = new.values
    result[:old, old:] = new.values[:, :old].T
    return result


def unit_rows(rows: Rows, names: Sequence[str] | None = None) -> UnitRows:
    """The rows in memory, each divided by its norm.

    Raises:
        ValueError: A row is zero or not finite.
    """
    values, norms = np.empty((len(rows), entries(rows)), np.float32), np.zeros(len(rows))
    broken = np.zeros(len(rows), bool)
    for i, row in enumerate(rows):
        exact = np.asarray(row[:], np.float64)
        norms[i] = np.linalg.norm(exact)
        broken[i] = not np.isfinite(norms[i])
        values[i] = exact / norms[i] if norms[i] and not broken[i] else 0
    _refuse(broken, norms == 0, names)
    return UnitRows(values, norms)


def gram(C: Float[Array, "t t"], norms: Float[Array, " t"] | Sequence[float]) -> Float[Array, "t t"]:
    """`K_ij = ⟨g_i, g_j⟩ = C_ij ‖g_i‖ ‖g_j‖`, divided by the mean squared norm (MERIT Lemma 1, `K = D C D`).

    Args:
        C: Cosine similarity.
        norms: ‖g_t‖ of each dataset, positive.
    """
    D = np.asarray(norms, np.float64)
    D = D / np.sqrt(np.mean(D**2))
    return jnp.asarray(D[:, None] * np.asarray(C, np.float64) * D, jnp.float32)


def _refuse(broken: Bool[np.ndarray, " t"], zero: Bool[np.ndarray, " t"], names: Sequence[str] | None) -> None:
    """Names the rows that have no direction."""
    bad = np.flatnonzero(broken | zero)
    if bad.size:
        listed = ", ".join(
            f"row {i}{f' ({names[i]})' if names else ''} is {'not finite' if broken[i] else 'zero'}" for i in bad
        )
        raise ValueError(
            f"a dataset gradient has no direction: {listed}. Expected finite rows with a non-zero entry; look for a "
            "dataset without supervised tokens, or a loss that overflows"
        )
