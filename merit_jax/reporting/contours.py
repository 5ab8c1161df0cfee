"""Lines of equal height on a grid, by marching squares, and the density of points."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from merit_jax.core.types import Array
from merit_jax.reporting.figures import Number


def segments(
    x: Float[Array, " w"], y: Float[Array, " h"], z: Float[Array, "h w"], level: Number
) -> Float[np.ndarray, "n 4"]:
    """Short pieces (x0, y0, x1, y1) of the line z = level, where z is interpolated linearly along the edges of the grid.

    Args:
        x: Columns, ascending.
        y: Rows, ascending.
        z: Height at (y, x); lines end where it is NaN.
        level: Height of the line.
    """
    found = [piece for row in range(len(y) - 1) for piece in _crossings(x, y, z, level, row)]
    pieces = np.array(found, np.float64).reshape(-1, 4)
    return pieces[np.isfinite(pieces).all(axis=1)]


def _crossings(x: Array, y: Array, z: Array, level: Number, row: int) -> Iterator[list[Number]]:
    """The pieces in one row of cells: each cell's edges are crossed 0, 2 or 4 times, paired in order around it."""
    above = z >= level
    corners = above[row : row + 2].astype(int)
    mixed = corners[:, :-1].sum(axis=0) + corners[:, 1:].sum(axis=0)
    for column in np.flatnonzero((mixed > 0) & (mixed < 4)):
        corners = [(row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column)]
        crossed = []
        for (a, b), (c, d) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if above[a, b] != above[c, d]:
                share = (level - z[a, b]) / (z[c, d] - z[a, b])
                crossed.append([x[b] + share * (x[d] - x[b]), y[a] + share * (y[c] - y[a])])
        for one, other in zip(crossed[::2], crossed[1::2], strict=True):
            yield [*one, *other]


def density(points: Float[Array, "n 2"], x: Float[Array, " w"], y: Float[Array, " h"]) -> Float[np.ndarray, "h w"]:
    """Gaussian kernel density estimate on a grid, its bandwidth by Scott's rule: std · n^(-1/6) along each axis.

    Args:
        points: Places of the sample.
        x: Columns of the grid.
        y: Rows of the grid.
    """
    points = np.asarray(points, np.float64)
    spread = points.std(axis=0)
    width = np.where(spread > 0, spread, 1.0) * len(points) ** (-1 / 6)
    across = np.exp(-0.5 * ((np.asarray(x)[:, None] - points[:, 0]) / width[0]) ** 2)
    along = np.exp(-0.5 * ((np.asarray(y)[:, None] - points[:, 1]) / width[1]) ** 2)
    return along @ across.T / (len(points) * 2 * np.pi * width.prod())


def levels(z: Float[Array, "h w"], shares: Sequence[Number]) -> list[Number]:
    """Heights at shares of the way from the lowest to the highest."""
    low, high = float(np.nanmin(z)), float(np.nanmax(z))
    return [low + share * (high - low) for share in shares]
