"""Searches merge weights by CMA-ES (Hansen 2016, arXiv:1604.00772), from scores of merged models alone.

The weights of K branches are a point of the simplex, so that the merged model stays a weighted mean. The search is in isometric
log-ratio coordinates (Egozcue et al. 2003) around the starting weights w⁰,

    w(u) = softmax(ln w⁰ + Hᵀ u),   u ∈ R^(K−1),

with the K − 1 orthonormal rows of the Helmert matrix H: u = 0 gives w⁰, every w has positive entries that sum to one, no two u
give the same w, and no branch is singled out. Weights with several rows, one for each block of layers, have K − 1 coordinates
for each row.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy
from jaxtyping import Float

SIGMA = 0.5
"""Standard deviation of the first generation, in log-ratios: the ratio of two weights typically changes by a factor of two.

On quadratics with an optimum drawn from all weights, 0.5 was the best or nearly so of 0.3, 0.5, 1 and 1.5 for 2, 4 and 8 branches
and 20, 40 and 80 evaluations.
"""


class SearchPoint(NamedTuple):
    """Merge weights that were scored.

    Attributes:
        coordinates: u, row after row.
        score: Their score; more is better.
    """

    coordinates: tuple[float, ...]
    score: float


def weights_at(
    coordinates: Sequence[float] | np.ndarray, start: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "rows k"]:
    """Returns the merge weights of a point.

    Args:
        coordinates: u, K − 1 numbers for each row.
        start: w⁰, positive.

    Examples:
        >>> weights_at([0.0, 1.0], np.array([0.25, 0.75])).round(3).tolist()
        [[0.25, 0.75], [0.578, 0.422]]
    """
    rows = np.asarray(coordinates, np.float64).reshape(-1, len(start) - 1)
    return scipy.special.softmax(np.log(start) + rows @ scipy.linalg.helmert(len(start)), axis=1)


def search_weights(
    score: Callable[[Float[np.ndarray, "rows k"]], float],
    start: Float[np.ndarray, " k"],
    *,
    rows: int,
    seed: int,
    known: Sequence[SearchPoint] = (),
) -> Iterator[SearchPoint]:
    """Yields points without end, w⁰ first, each after it was scored.

    A point depends on the seed and on the points before it alone: a search that was stopped goes on with the points it would
    have had, and a longer one begins with the points of a shorter.

    Args:
        score: Weights, a row for each block of layers -> their score; more is better, and must be finite.
        start: w⁰ of K branches, positive; every row starts from it.
        rows: Number of rows.
        seed: Seed of the random draws.
        known: The first points of this search, as yielded before; they are not scored again, and not yielded.

    Raises:
        ValueError: There is one branch only, or a starting weight is not positive.
        ImportError: cmaes is not installed.

    Examples:
        >>> points = search_weights(lambda w: -abs(w[0, 0] - 0.9), np.array([0.5, 0.5]), rows=1, seed=0)
        >>> found = list(itertools.islice(points, 40))
        >>> found[0].score, round(max(point.score for point in found), 2)
        (-0.4, -0.0)
    """
    if len(start) < 2 or min(start) <= 0:
        raise ValueError(
            f"a search of merge weights needs two branches or more, of positive weights; got {list(start)}"
        )
    optimizer = _optimizer(rows * (len(start) - 1), seed)
    generation: list[tuple[np.ndarray, float]] = []
    for place in itertools.count():
        drawn = optimizer.ask() if place else np.zeros(optimizer.dim)
        if place < len(known):
            point = known[place]
        else:
            point = SearchPoint(tuple(drawn.tolist()), float(score(weights_at(drawn, start))))
            yield point
        if place:
            generation.append((np.array(point.coordinates), -point.score))
        if len(generation) == optimizer.population_size:
            optimizer.tell(generation)
            generation = []


def best_place(points: Sequence[SearchPoint]) -> int:
    """Returns the place of the point with the highest score; of equals, the first.

    Examples:
        >>> best_place([SearchPoint((0.0,), 0.5), SearchPoint((0.1,), 0.75), SearchPoint((0.2,), 0.75)])
        1
    """
    return max(range(len(points)), key=lambda place: points[place].score)


def _optimizer(dimensions: int, seed: int) -> Any:
    try:
        from cmaes import CMA
    except ModuleNotFoundError:
        raise ImportError("a search of merge weights needs cmaes: pip install 'merit-jax[search]'") from None
    return CMA(np.zeros(dimensions), SIGMA, seed=seed)
