"""Similarity of gradients as the curvature of the loss sees them (MERIT §3: the matrix M of the merging gain)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from merit_jax.conflict.blocked_products import Rows, inner_products, row_norms


class CurvatureCosines(NamedTuple):
    """Cosines of gradients in the inner product of a positive semi-definite matrix H.

    Attributes:
        values: `M_ij / √(M_ii M_jj)` with `M_ij = g_iᵀ H g_j`, symmetric, between −1 and 1; exactly 1 for a row with itself.
        error: Root mean square of half the difference of `M_ij` and `M_ji`, on the same scale: the size of the error that
            compression has left in an entry.
    """

    values: Float[np.ndarray, "t t"]
    error: float


def curvature_cosines(
    gradients: Rows, products: Rows, names: Sequence[str] | None = None, *, mesh: Mesh | None = None
) -> CurvatureCosines:
    """Computes `M_ij / √(M_ii M_jj)` from the rows g_i and H g_j: the cosines of the vectors `H^½ g_t`.

    Both come out of the same compressor, which keeps inner products; a constant factor of it cancels. M is symmetric, so that
    the mean of its two estimates of an entry is taken.

    Args:
        gradients: g_t, one a row.
        products: H g_t, likewise, compressed by the same map.
        names: Names of the datasets, for error messages.
        mesh: Devices that multiply; None: the host.

    Raises:
        ValueError: M_tt of a dataset is not positive: H does not see its gradient, or compression has lost it.

    Examples:
        Two orthogonal gradients, and an H that sees the sum of their coordinates:

        >>> G, H = np.eye(2, dtype=np.float32), np.array([[1.0, 1.0], [1.0, 1.0]], np.float32)
        >>> curvature_cosines(G, G @ H).values.tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    count, rows = len(gradients), [*gradients, *products]
    lengths = row_norms(rows)
    lengths = np.where((lengths > 0) & np.isfinite(lengths), lengths, 1)
    M = inner_products(rows, lengths, count, mesh).inner[:, :count] * lengths[count:, None] * lengths[:count]
    along = M.diagonal()
    if bad := np.flatnonzero(~((along > 0) & np.isfinite(along))).tolist():
        listed = ", ".join(f"{'row ' + str(i) if names is None else repr(names[i])} ({along[i]:.3g})" for i in bad)
        raise ValueError(
            f"the loss has no positive curvature along the gradient of dataset {listed}, so its curvature cosines are undefined; "
            "raise gradients.width or gradients.curvature_examples, or split by conflict.similarity=cosine"
        )
    scale = np.sqrt(along)
    M = M / scale[:, None] / scale
    values = np.clip((M + M.T) / 2, -1, 1).astype(np.float32)
    np.fill_diagonal(values, 1)
    return CurvatureCosines(values, float(np.sqrt(np.mean((M - M.T) ** 2)) / 2))
