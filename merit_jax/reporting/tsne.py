"""Datasets in the plane by t-SNE (van der Maaten & Hinton 2008) on the cosine distances of their gradients."""

import numpy as np
from jaxtyping import Float
from sklearn.manifold import TSNE

from merit_jax.core.types import Array

MOST_EXACT = 300
"""Datasets up to which all pairs are computed; Barnes and Hut's approximation is faster for more."""

FEWEST = 5
"""Datasets below which neighbourhoods say nothing."""

PERPLEXITY = 30.0
"""Neighbours that count as near, at most; for few datasets a third of the others."""


def embed(similarity: Float[Array, "t t"], start: Float[Array, "t 2"]) -> Float[np.ndarray, "t 2"]:
    """Returns places of the datasets such that near ones have similar gradients: t-SNE of `1 − C_ij`.

    Args:
        similarity: Cosine similarity C of at least `FEWEST` datasets.
        start: Places to begin at, such as scores on two principal axes; the same start ends in the same places.
    """
    C = np.asarray(similarity, np.float64)
    distance = np.clip(1 - (C + C.T) / 2, 0, 2)
    np.fill_diagonal(distance, 0)
    start = np.asarray(start, np.float64)
    start = (1e-4 * start / max(float(start[:, 0].std()), 1e-12)).astype(np.float32)
    perplexity = min(PERPLEXITY, (len(C) - 1) / 3)
    method = "exact" if len(C) <= MOST_EXACT else "barnes_hut"
    tsne = TSNE(perplexity=perplexity, metric="precomputed", init=start, random_state=0, method=method)
    return np.asarray(tsne.fit_transform(distance), np.float64)


def density(points: Float[Array, "n 2"], x: Float[Array, " w"], y: Float[Array, " h"]) -> Float[np.ndarray, "h w"]:
    """Returns a Gaussian kernel density estimate on a grid, its bandwidth by Scott's rule: std · n^(-1/6) along each axis.

    Args:
        points: Places of the sample.
        x: Columns of the grid.
        y: Rows of the grid.

    Examples:
        >>> density(np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([-9.0, 1.0]), np.array([0.0])).round(3).tolist()
        [[0.0, 0.107]]
    """
    points = np.asarray(points, np.float64)
    spread = points.std(axis=0)
    width = np.where(spread > 0, spread, 1.0) * len(points) ** (-1 / 6)
    across = np.exp(-0.5 * ((np.asarray(x)[:, None] - points[:, 0]) / width[0]) ** 2)
    along = np.exp(-0.5 * ((np.asarray(y)[:, None] - points[:, 1]) / width[1]) ** 2)
    return along @ across.T / (len(points) * 2 * np.pi * width.prod())
