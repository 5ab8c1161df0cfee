"""Conflict between datasets: cosine similarity of gradients and its principal axes (MERIT Alg. 1, steps 1 and 2)."""

from merit_jax.conflict.axes import CENTRINGS, PrincipalAxes, axes_of_rows, principal_axes
from merit_jax.conflict.blocked_products import Row, Rows
from merit_jax.conflict.curvature import CurvatureCosines, curvature_cosines
from merit_jax.conflict.duplicates import duplicates, duplicates_of_rows, repeated
from merit_jax.conflict.similarity import (
    Cosines,
    UnitRows,
    cosine_similarity,
    cosines,
    extend_similarity,
    extended,
    gram,
    unit_rows,
)

__all__ = [
    "CENTRINGS",
    "Cosines",
    "CurvatureCosines",
    "PrincipalAxes",
    "Row",
    "Rows",
    "UnitRows",
    "axes_of_rows",
    "cosine_similarity",
    "cosines",
    "curvature_cosines",
    "duplicates",
    "duplicates_of_rows",
    "extend_similarity",
    "extended",
    "forms_similarity",
    "gram",
    "principal_axes",
    "repeated",
    "unit_rows",
]


def forms_similarity(datasets: int, entries: int, limit: int) -> bool:
    """Returns whether C is formed: it is small, or no larger than the gradients. Else its axes come from products with them.

    Args:
        datasets: T; C takes 4 T² bytes.
        entries: d of each gradient; together they take 4 T d bytes.
        limit: Bytes that C may take whatever the gradients take (`conflict.similarity_bytes`).
    """
    return 4 * datasets**2 <= limit or datasets <= entries
