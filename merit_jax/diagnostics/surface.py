"""Loss on a plane through theta0 and the merged model, tilted towards the branches (MERIT, local loss surfaces)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from merit_jax.core import tree
from merit_jax.core.leaves import LeafReader
from merit_jax.core.types import Array, Batch, Leaves, LossFn, Params
from merit_jax.diagnostics.mean_loss import mean_loss


class Plane(NamedTuple):
    """An orthonormal frame at theta0.

    The first axis points to the merged model; the second is the direction in which the branches differ most from one another
    once that is taken out.

    Attributes:
        axes: Each axis as a combination of the task vectors, branches first, the merged model's last.
        places: Coordinates of the branches and the merged model, projected onto the plane, in units of ‖θ‖₂.
        off: Their distances from the plane: 0 for the merged model, and for two branches whose mean it is.
    """

    axes: Float[np.ndarray, "2 m"]
    places: Float[np.ndarray, "m 2"]
    off: Float[np.ndarray, " m"]


class Surface(NamedTuple):
    """The loss on a grid of the plane, theta0 at (0, 0).

    Attributes:
        x: Coordinates along the first axis.
        y: Coordinates along the second axis.
        losses: L at (x[j], y[i]), nats per supervised token.
        names: Of the branches and, last, the merged model.
        places: Their coordinates, projected onto the plane.
        off: Their distances from it.
    """

    x: Float[np.ndarray, " grid"]
    y: Float[np.ndarray, " grid"]
    losses: Float[np.ndarray, "grid grid"]
    names: tuple[str, ...]
    places: Float[np.ndarray, "m 2"]
    off: Float[np.ndarray, " m"]


def plane(G: Float[np.ndarray, "m m"]) -> Plane:
    """Computes the plane from the inner products of the task vectors alone.

    Args:
        G: Of the branches' task vectors and, last, the merged model's (see `displacement.inner_products`).

    Raises:
        ValueError: The merged model is theta0, or all branches are on the line to it.

    Examples:
        Two orthogonal branches of length 2 and their mean, at √2 along the first axis:

        >>> G = np.array([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0], [2.0, 2.0, 2.0]])
        >>> [[round(abs(float(x)), 3) for x in place] for place in plane(G).places]
        [[1.414, 1.414], [1.414, 1.414], [1.414, 0.0]]
    """
    size = G[-1, -1]
    if not size > 0:
        raise ValueError(
            "the merged model does not differ from theta0: there is no plane through both and the branches"
        )
    share = G[:-1, -1] / size
    apart = G[:-1, :-1] - np.outer(share, share) * size
    lengths, directions = np.linalg.eigh(apart)
    if lengths[-1] <= 1e-12 * np.trace(G):
        raise ValueError(
            "the branches are on one line through theta0: no plane is spanned; expected branches that differ"
        )
    first = np.append(np.zeros(len(share)), 1 / np.sqrt(size))
    second = np.append(directions[:, -1], -directions[:, -1] @ share) / np.sqrt(lengths[-1])
    axes = np.stack([first, second])
    places = G @ axes.T
    flip = np.array([1, np.sign(places[np.abs(places[:, 1]).argmax(), 1])])
    off = np.sqrt(np.maximum(np.diag(G) - np.square(places).sum(axis=1), 0))
    return Plane(axes * flip[:, None], places * flip, off)


def axis_leaves(
    theta0: LeafReader, models: Sequence[LeafReader], weights: Float[np.ndarray, " m"], paths: Sequence[str]
) -> Leaves:
    """Computes `Σ_k c_k (θ_k − θ0)` over some leaves, in the memory of one leaf of every model besides the result.

    Args:
        theta0: The start of all models.
        models: The models.
        weights: c.
        paths: The leaves.
    """

    def combined(path: str) -> np.ndarray:
        base = theta0.read(path).astype(np.float32)
        parts = ((reader.read(path).astype(np.float32) - base, c) for reader, c in zip(models, weights, strict=True))
        return sum((np.float32(c) * part for part, c in parts), np.zeros_like(base))

    return {path: combined(path) for path in paths}


def surface(
    loss_fn: LossFn,
    theta0: Params,
    axes: tuple[Leaves, Leaves],
    found: Plane,
    names: Sequence[str],
    batches: Iterable[Batch],
    *,
    points: int = 15,
    margin: float = 0.25,
) -> Surface:
    """Evaluates `L(θ0 + x u_1 + y u_2)` on a grid that covers theta0 and the models.

    Args:
        loss_fn: (params, batch) -> (nll f32[B], tokens f32[B]).
        theta0: The origin.
        axes: u_1 and u_2 as leaves, of `axis_leaves`; other parameters stay theta0's.
        found: The plane.
        names: Of its models.
        batches: Data of the loss, on the devices; gone through anew for every evaluation.
        points: Grid points along each axis.
        margin: Room on every side, as a share of the models' extent.

    Raises:
        ValueError: Fewer than two points.
    """
    if points < 2:
        raise ValueError(f"diagnostics.grid = {points}; expected at least 2 points along each axis")
    loss = mean_loss(loss_fn, batches)
    x, y = _range(found.places[:, 0], points, margin), _range(found.places[:, 1], points, margin)
    losses = np.array([[loss(_at(theta0, axes, float(a), float(b))) for a in x] for b in y])
    return Surface(x, y, losses, tuple(names), found.places, found.off)


def _range(places: Float[np.ndarray, " m"], points: int, margin: float) -> Float[np.ndarray, " grid"]:
    """Even steps over theta0 (at 0) and the models, and some room on both sides."""
    low, high = min(places.min(), 0), max(places.max(), 0)
    room = margin * (high - low)
    return np.linspace(low - room, high + room, points)


def _at(theta0: Params, axes: tuple[Leaves, Leaves], x: float, y: float) -> Params:
    first, second = axes
    moved = {
        path: _step(leaf, first[path], second[path], x, y) if path in first else leaf
        for path, leaf in tree.flatten(theta0).items()
    }
    return tree.unflatten(moved)


@jax.jit
def _step(leaf: Array, first: Array, second: Array, x: float | Array, y: float | Array) -> Array:
    return (leaf.astype(jnp.float32) + x * first + y * second).astype(leaf.dtype)
