"""Displacement of models from theta0: distances, directions and the contraction by averaging (MERIT §4, Eqs. 2 and 11)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from merit_jax.core.leaves import LeafReader

CHUNK = 2**22
"""Entries of every model that are multiplied at a time."""


class ParallelAxis(NamedTuple):
    """`Σ_k w_k ‖δ_k‖² = ‖δ̄‖² + Σ_k w_k ‖δ_k − δ̄‖²` with `δ = θ − θ0` and `θ̄ = Σ_k w_k θ_k` merged (MERIT Eq. 11).

    Attributes:
        branches: Left side: mean squared distance of the branches from theta0.
        merged: ‖δ̄‖², that of the merged model.
        spread: Mean squared distance of the branches from the merged model.
        residual: (left − right) / left: rounding.
        contraction: ‖δ̄‖² over the left side, at most 1 (MERIT Eq. 2).
    """

    branches: float
    merged: float
    spread: float
    residual: float
    contraction: float


class Trajectory(NamedTuple):
    """A training run's distance from theta0, as its log has it.

    Attributes:
        name: Of the model.
        steps: Optimizer steps taken.
        epochs: Passes over the model's examples.
        distances: ‖θ − θ0‖₂.
    """

    name: str
    steps: Sequence[int]
    epochs: Sequence[float]
    distances: Sequence[float]


class Displacement(NamedTuple):
    """Task vectors `δ = θ − θ0` over the trained parameters.

    Attributes:
        names: Of the models.
        distances: ‖δ‖₂ of each.
        cosines: Between each two task vectors; NaN where one is zero.
        parallel_axis: Of the branches and the merged model; None where that is not their weighted mean: Eq. 11 is not defined.
        joint_over_merged: Ratio of their distances; None without joint training.
        trajectories: Distance along training, of the models whose logs have it.
    """

    names: tuple[str, ...]
    distances: Float[np.ndarray, " m"]
    cosines: Float[np.ndarray, "m m"]
    parallel_axis: ParallelAxis | None
    joint_over_merged: float | None
    trajectories: tuple[Trajectory, ...] = ()


def displacement(
    theta0: LeafReader,
    branches: Mapping[str, LeafReader],
    weights: Sequence[float] | None,
    merged: LeafReader,
    joint: LeafReader | None = None,
) -> Displacement:
    """Computes distances, cosines and the parallel-axis identity, in the memory of one leaf of every model.

    Args:
        theta0: The start of all models.
        branches: Name -> branch; its leaves are the trained ones.
        weights: w_k of the merge, in the order of `branches`, summing to one; None where it is no weighted mean.
        merged: The merged model.
        joint: Joint training, if there is any.
    """
    models = {**branches, "merged": merged, **({"joint": joint} if joint is not None else {})}
    trained = list(next(iter(branches.values())).paths())
    G = inner_products(theta0, list(models.values()), trained)
    distances = np.sqrt(np.diag(G))
    at = {name: place for place, name in enumerate(models)}
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = G / np.outer(distances, distances)
        ratio = float(distances[at["joint"]] / distances[at["merged"]]) if joint is not None else None
    own = G[: len(branches) + 1, : len(branches) + 1]
    identity = None if weights is None else parallel_axis(own, np.asarray(weights, np.float64))
    return Displacement(tuple(models), distances, cosines, identity, ratio)


def parallel_axis(G: Float[np.ndarray, "m m"], weights: Float[np.ndarray, " k"]) -> ParallelAxis:
    """Computes both sides of MERIT Eq. 11, each from its own entries of G.

    Args:
        G: Inner products of the branches' task vectors and, last, the merged one's.
        weights: w_k.

    Examples:
        Two orthogonal branches of length 2 and their mean:

        >>> G = np.array([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0], [2.0, 2.0, 2.0]])
        >>> parallel_axis(G, np.array([0.5, 0.5]))
        ParallelAxis(branches=4.0, merged=2.0, spread=2.0, residual=0.0, contraction=0.5)
    """
    squares, merged = np.diag(G)[:-1], float(G[-1, -1])
    left = float(weights @ squares)
    spread = float(weights @ (squares - 2 * G[:-1, -1] + merged))
    return ParallelAxis(left, merged, spread, (left - merged - spread) / left, merged / left)


def inner_products(theta0: LeafReader, models: Sequence[LeafReader], paths: Sequence[str]) -> Float[np.ndarray, "m m"]:
    """Computes `⟨θ_i − θ0, θ_j − θ0⟩` over some leaves, accumulated in float64."""
    G = np.zeros((len(models), len(models)))
    for block in _blocks(theta0, models, paths):
        G += block @ block.T
    return G


def _blocks(theta0: LeafReader, models: Sequence[LeafReader], paths: Sequence[str]) -> Iterator[np.ndarray]:
    """Stacked task vectors, f64[m, entries], a part of a leaf at a time."""
    for path in paths:
        base, *leaves = (np.ravel(reader.read(path)) for reader in (theta0, *models))
        for start in range(0, len(base), CHUNK):
            part = slice(start, start + CHUNK)
            yield np.stack([leaf[part].astype(np.float64) - base[part] for leaf in leaves])
