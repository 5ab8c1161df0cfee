"""Linear mode connectivity: the loss on the straight lines between models (MERIT §4)."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.types import Batch, LossFn, Params
from merit_jax.diagnostics.mean_loss import Loss, mean_loss


class Path(NamedTuple):
    """The loss on the line from one model to another.

    Attributes:
        start: Name of the model at α = 0.
        end: Name of the model at α = 1.
        losses: L(θ(α)), nats per supervised token.
        barrier: `max_α [L(θ(α)) − ((1 − α) L(θ(0)) + α L(θ(1)))]`, never negative.
    """

    start: str
    end: str
    losses: Float[np.ndarray, " points"]
    barrier: float


class Connectivity(NamedTuple):
    """The lines between all pairs of models.

    Attributes:
        alphas: α of every point.
        paths: The lines.
        barrier: The highest barrier, in nats per supervised token.
    """

    alphas: Float[np.ndarray, " points"]
    paths: tuple[Path, ...]
    barrier: float


def connectivity(
    loss_fn: LossFn,
    models: Mapping[str, Params],
    batches: Iterable[Batch],
    *,
    points: int = 21,
) -> Connectivity:
    """Evaluates the loss at `θ(α) = (1 − α) θ_a + α θ_b` for every pair of models; ends are evaluated once.

    Of K branches and their merge these are K(K−1)/2 lines between branches and K to the merged model.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]).
        models: Name -> params, read when needed: a mapping that reads from files holds two models at a time.
        batches: Data of the loss, on the devices; gone through anew for every evaluation.
        points: Evenly spaced α on each line, ends included (paper: 21).

    Raises:
        ValueError: Fewer than two models or three points.
    """
    if len(models) < 2:
        raise ValueError(f"connectivity is about lines between models; got {len(models)}, expected at least 2")
    if points < 3:
        raise ValueError(f"connectivity: {points} points a line; expected at least 3 (diagnostics.points)")
    loss, alphas = mean_loss(loss_fn, batches), np.linspace(0, 1, points)
    ends: dict[str, float] = {}
    paths: list[Path] = []
    names = list(models)
    for place, start in enumerate(names[:-1]):
        first = models[start]
        paths += [_path(loss, (start, first), (end, models[end]), alphas, ends) for end in names[place + 1 :]]
    return Connectivity(alphas, tuple(paths), max(path.barrier for path in paths))


def evaluations(models: int, points: int) -> int:
    """Returns the number of loss evaluations of `connectivity`.

    Examples:
        >>> evaluations(models=3, points=21)
        60
    """
    return models + models * (models - 1) // 2 * (points - 2)


def barrier(alphas: Float[np.ndarray, " points"], losses: Float[np.ndarray, " points"]) -> float:
    """Computes `max_α [L(α) − ((1 − α) L(0) + α L(1))]` over points from α = 0 to α = 1.

    Examples:
        >>> barrier(np.array([0.0, 0.5, 1.0]), np.array([1.0, 4.0, 2.0]))
        2.5
    """
    return float(np.max(losses - ((1 - alphas) * losses[0] + alphas * losses[-1])))


def _path(
    loss: Loss,
    start: tuple[str, Params],
    end: tuple[str, Params],
    alphas: Float[np.ndarray, " points"],
    ends: dict[str, float],
) -> Path:
    """One line; `ends` remembers the loss of each model."""
    (a, first), (b, last) = start, end
    for name, params in (start, end):
        if name not in ends:
            ends[name] = loss(params)
    inner = [loss(tree.between(first, last, float(alpha))) for alpha in alphas[1:-1]]
    losses = np.array([ends[a], *inner, ends[b]])
    return Path(a, b, losses, barrier(alphas, losses))
