"""TIES: Yadav et al., TIES-Merging: Resolving Interference When Merging Models, NeurIPS 2023."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from merit_jax.core.types import Array
from merit_jax.merging.merger import Merger
from merit_jax.merging.operators.selection import magnitude_threshold
from merit_jax.merging.operators.task_vectors import Parameter, moved, task_vectors


def ties(
    parameter: Parameter,
    weights: Sequence[float],
    *,
    scale: int | float = 1.0,
    density: int | float = 0.2,
    trim_scope: str = "tensor",
    weighted_election: bool = False,
    weighted_mean: bool = False,
) -> Array:
    """Merges to `θ_0 + λ τ`: trim, elect a sign per entry, average those that agree with it (Alg. 1).

    τ̂_k keeps the largest `density` of the entries of τ_k by magnitude; `γ = sgn(Σ_k a_k τ̂_k)`;
    `τ = Σ_{k ∈ A} b_k τ̂_k / Σ_{k ∈ A} b_k` with `A = {k: sgn τ̂_k = γ}`. The paper has a = b = 1; mergekit a = b = w. Where
    the masses cancel, γ = 0 and the entry stays as in theta0. One branch gives θ_0 + λ τ̂_1.

    Args:
        scale: λ.
        density: Share of entries that are kept (paper: 20 %).
        trim_scope: "tensor" ranks the entries of each layer's tensor by themselves, also where layers are stacked (mergekit),
            "global" those of a branch's whole task vector (paper).
        weighted_election: Whether a_k = w_k.
        weighted_mean: Whether b_k = w_k.
    """
    trimmed = (_trimmed(vector, threshold) for vector, threshold in _with_thresholds(parameter, density))
    merged = consensus(trimmed, weights, weighted_election=weighted_election, weighted_mean=weighted_mean)
    return moved(parameter.base, merged, scale)


def thresholds(
    vectors: Callable[[int], Iterator[Array]], branches: int, options: Mapping[str, Any]
) -> tuple[float, ...] | None:
    """Makes the first pass of `trim_scope="global"`: the smallest magnitude that is kept, per branch."""
    if options["trim_scope"] != "global":
        return None
    return tuple(magnitude_threshold(partial(vectors, k), options["density"]) for k in range(branches))


def weighted(options: Mapping[str, Any]) -> bool:
    """Returns whether weights make a difference with these options."""
    return options["weighted_election"] or options["weighted_mean"]


def consensus(
    vectors: Iterable[Array], weights: Sequence[float], *, weighted_election: bool, weighted_mean: bool
) -> Array:
    """Elects by mass and averages those that agree, see `ties`; the vectors, at least one, are gone through once."""
    remaining = iter(vectors)
    first = next(remaining)
    tally = _empty(first)
    for vector, weight in zip(chain([first], remaining), weights, strict=True):
        cast = np.float32(weight if weighted_election else 1), np.float32(weight if weighted_mean else 1)
        tally = _add(tally, vector, *cast)
    return _elected(tally)


class _Tally(NamedTuple):
    """Sums over branches, per entry: `mass` of all; of positive and of negative entries, `b_k τ̂_k` and `b_k`."""

    mass: Array
    above: Array
    above_weight: Array
    below: Array
    below_weight: Array


def _empty(vector: Array) -> _Tally:
    return _Tally(*(jnp.zeros_like(vector) for _ in _Tally._fields))


@partial(jax.jit, donate_argnums=0)
def _add(tally: _Tally, vector: Array, election: Array, mean: Array) -> _Tally:
    above, below = vector > 0, vector < 0
    return _Tally(
        tally.mass + election * vector,
        tally.above + jnp.where(above, mean * vector, 0),
        tally.above_weight + jnp.where(above, mean, 0),
        tally.below + jnp.where(below, mean * vector, 0),
        tally.below_weight + jnp.where(below, mean, 0),
    )


@jax.jit
def _elected(tally: _Tally) -> Array:
    total = jnp.where(tally.mass > 0, tally.above, jnp.where(tally.mass < 0, tally.below, 0))
    weight = jnp.where(tally.mass > 0, tally.above_weight, tally.below_weight)
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)


@jax.jit
def _trimmed(vector: Array, threshold: Array) -> Array:
    return jnp.where(jnp.abs(vector) >= threshold, vector, 0)


def _with_thresholds(parameter: Parameter, density: int | float) -> Iterator[tuple[Array, Array]]:
    known = parameter.survey
    for k, vector in enumerate(task_vectors(parameter)):
        own = _tensor_thresholds(vector, parameter.stacked, density) if known is None else np.asarray(known[k])
        yield vector, own.astype(np.float32)


def _tensor_thresholds(vector: Array, stacked: int, density: int | float) -> np.ndarray:
    """The smallest magnitude that is kept of each layer's tensor, with `stacked` axes and one of length 1 for each other."""
    layers, own = vector.shape[:stacked], vector.shape[stacked:]
    found = [magnitude_threshold(partial(list, [layer]), density) for layer in vector.reshape(-1, *own)]
    return np.reshape(found, (*layers, *(1 for _ in own)))


MERGERS = {"ties": Merger(ties, survey=thresholds, weighted=weighted)}
"""Name -> the operator."""
