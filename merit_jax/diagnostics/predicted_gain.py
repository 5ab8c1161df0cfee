"""Predicted merging gain of a partition, before training, from the curvature between dataset gradients (MERIT §3)."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from merit_jax.conflict import Rows
from merit_jax.core.types import Array, Leaves
from merit_jax.diagnostics.lanczos import Operator
from merit_jax.partition.partitioner import Groups, Samples
from merit_jax.partition.random import random


class SplitGain(NamedTuple):
    """Second-order terms of the losses after one SGD step of each branch from theta0, nats; one entry per split.

    The first-order term, −η ⟨∇L, ḡ⟩, is the same for branches and merged.

    Attributes:
        gain: `branches − merged`: G(s).
        branches: `η²/2 Σ_k w_k ḡ_kᵀ H ḡ_k`: the mean cost of curvature to the branches.
        merged: `η²/2 ḡᵀ H ḡ`, `ḡ = Σ_k w_k ḡ_k`: its cost to the merged model. Where branches are weighted by their data,
            ḡ is the mean gradient of the mixture whatever the split: after one SGD step a larger gain is worse branches,
            and no better merge. Not so after several steps with Hessians that differ, nor with Adam (docs/concepts/theory.md).
    """

    gain: Float[np.ndarray, " s"]
    branches: Float[np.ndarray, " s"]
    merged: Float[np.ndarray, " s"]


class PartitionGain(NamedTuple):
    """A split compared with random ones that are as balanced.

    Attributes:
        chosen: The split in question.
        random: Balanced random splits.
        best: The one of those with the largest gain.
        best_groups: Its groups.
        rank: Share of the random splits whose gain is below the chosen split's.
    """

    chosen: SplitGain
    random: SplitGain
    best: SplitGain
    best_groups: Int[np.ndarray, " t"]
    rank: float


def gradient_curvature(
    product: Operator,
    gradients: Iterable[Leaves],
    rows: Rows,
    reduce: Callable[[Leaves], Float[Array, " d"]],
    scale: float = 1.0,
) -> Float[np.ndarray, "t t"]:
    """Computes `M_ij = g_iᵀ H g_j` (MERIT §3), by one Hessian-vector product per dataset.

    H g_j is compressed as the stored gradients were, so no more than one gradient is ever whole in memory. M is symmetric;
    the asymmetry of the result is the error of the compression.

    Args:
        product: v -> H v at theta0, on calibration examples of the mixture.
        gradients: g_t whole, iterated over once, in order.
        rows: The same gradients, compressed.
        reduce: The compressor of `rows`.
        scale: Factor by which compressed inner products fall short: entries / kept entries for a stride, 1 for a sketch.

    Raises:
        ValueError: There is not one row per gradient.
    """
    columns = []
    for gradient in gradients:
        image = reduce(product(gradient))
        columns.append([float(np.dot(np.asarray(row), image)) for row in rows])
    if len(columns) != len(rows):
        raise ValueError(
            f"got {len(columns)} whole gradients and {len(rows)} reduced ones; expected those of the same datasets"
        )
    return scale * np.array(columns, np.float64).T


def split_gain(
    M: Float[Array, "t t"],
    splits: Int[Array, "s t"],
    sizes: Samples,
    *,
    counts: Samples | None = None,
    weights: Sequence[float] | None = None,
    learning_rate: float = 1.0,
) -> SplitGain:
    """Predicts the gain of partitions: each branch takes one SGD step along its own mean gradient, then they are averaged.

    `ḡ_k = Σ_{t∈k} n_t g_t / N_k`, `θ_k = θ_0 − η ḡ_k`; `G(s) = η²/2 (Σ_k w_k ḡ_kᵀHḡ_k − ḡᵀHḡ)`. For two equal groups of equal
    datasets, with signs s: `G = η²/(2T²) sᵀMs`.

    Args:
        M: g_iᵀ H g_j; with cosines in place of it, the gain of unit gradients in a bowl.
        splits: Group of each dataset, one split per row, no group empty.
        sizes: n_t that weigh the datasets' gradients in a branch: tokens, or samples where training averages over examples.
        counts: n_t that the merge weighs branches by; None: `sizes`.
        weights: w_k of the merge; None: in proportion to the counts of the groups, as the paper's.
        learning_rate: η. Splits compare alike at any.

    Raises:
        ValueError: A group is empty, or there is not one weight per group.

    Examples:
        Two datasets whose gradients disagree in a bowl (`H = I`, so M is their Gram matrix):

        >>> M = np.array([[1.0, -0.5], [-0.5, 1.0]])
        >>> found = split_gain(M, np.array([[0, 1]]), sizes=[10, 10])
        >>> found.gain.tolist(), found.branches.tolist(), found.merged.tolist()
        ([0.375], [0.5], [0.125])
    """
    M, splits = np.asarray(M, np.float64), np.asarray(splits)
    inside = splits[:, None, :] == np.arange(int(np.max(splits)) + 1)[:, None]
    mass = inside * np.asarray(sizes, np.float64)
    totals = mass.sum(axis=2)
    if not totals.all():
        raise ValueError(f"split {int(np.argmin(totals.min(axis=1)))} has an empty group among its {inside.shape[1]}")
    own = inside @ np.asarray(sizes if counts is None else counts, np.float64)
    w = own / own.sum(axis=1, keepdims=True) if weights is None else np.asarray(weights, np.float64)
    if w.shape[-1] != inside.shape[1]:
        raise ValueError(f"got {w.shape[-1]} weights for {inside.shape[1]} groups; expected one each")
    member = mass / totals[:, :, None]
    mean = (w[..., None] * member).sum(axis=1)
    each = np.einsum("skt,tu,sku->sk", member, M, member, optimize=True)
    half = learning_rate**2 / 2
    branches, merged = half * (w * each).sum(axis=1), half * np.einsum("st,tu,su->s", mean, M, mean, optimize=True)
    return SplitGain(branches - merged, branches, merged)


def partition_gain(
    M: Float[Array, "t t"],
    groups: Groups,
    sizes: Samples,
    samples: Samples,
    *,
    counts: Samples | None = None,
    weights: Sequence[float] | None = None,
    learning_rate: float = 1.0,
    draws: int = 1000,
    seed: int = 0,
) -> PartitionGain:
    """Predicts the gain of a partition, of balanced random ones with as many groups, and of the best of those.

    Args:
        M: g_iᵀ H g_j.
        groups: Group of each dataset; a power of two of them.
        sizes: n_t that weigh datasets in a branch, see `split_gain`.
        samples: s_t that random splits balance.
        counts: n_t that weigh branches in the merge, see `split_gain`.
        weights: w_k, see `split_gain`.
        learning_rate: η.
        draws: Random splits.
        seed: Of the first; the others follow.

    Raises:
        ValueError: The number of groups is not a power of two, or an array is of the wrong size.
    """
    count = int(np.max(groups)) + 1
    scores = np.zeros((len(M), 1))
    splits = np.stack([random(scores, samples, groups=count, seed=seed + draw) for draw in range(draws)])
    gain = partial(split_gain, counts=counts, weights=weights, learning_rate=learning_rate)
    chosen, drawn = gain(M, np.asarray(groups)[None], sizes), gain(M, splits, sizes)
    best = int(np.argmax(drawn.gain))
    top = SplitGain(*(values[best : best + 1] for values in drawn))
    below = (drawn.gain < chosen.gain) & ~np.isclose(drawn.gain, chosen.gain)
    return PartitionGain(chosen, drawn, top, splits[best], float(np.mean(below)))
