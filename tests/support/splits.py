"""A mixture of quadratic datasets around theta0 = 0, and the project's own answers about its splits."""

from itertools import combinations
from typing import NamedTuple

import numpy as np

from merit_jax import conflict
from merit_jax.core import tree
from merit_jax.diagnostics import hessian
from merit_jax.diagnostics.predicted_gain import gradient_curvature, split_gain
from merit_jax.gradients.estimate import dataset_gradients
from merit_jax.gradients.stride import Stride
from merit_jax.partition import PARTITIONERS
from tests.support import toy

ETA = 0.05


class Mixture(NamedTuple):
    """Datasets with optima Δ_t: their gradients at theta0 = 0 are g_t = −H Δ_t.

    Attributes:
        toy: The mixture.
        theta0: Where branches start.
        M: g_iᵀ H g_j, from gradients and Hessian-vector products.
    """

    toy: toy.Quadratic
    theta0: dict
    M: np.ndarray

    def gains(self, splits: np.ndarray) -> np.ndarray:
        """Predicted gain of each split, datasets being of equal size."""
        return split_gain(self.M, splits, [1] * len(self.M), learning_rate=ETA).gain

    def pca_split(self) -> np.ndarray:
        """MERIT's split into two: dataset gradients, cosines, the first axis, the median."""
        batches = [[self.toy.batch([t])] for t in range(len(self.M))]
        params = tree.join(self.theta0, self.toy.frozen)
        G = dataset_gradients(
            toy.quadratic_loss, params, batches, trainable=("head", "tail"), reduction="stride", stride=1
        )
        scores = conflict.principal_axes(conflict.cosine_similarity(G), 1).scores
        return PARTITIONERS["median_split"](scores, [1] * len(self.M))


def mixture(H: np.ndarray, deltas: np.ndarray) -> Mixture:
    """The mixture, its gradients and its curvature taken by the project."""
    quadratic, theta0 = toy.Quadratic(H, deltas), toy.leaves(np.zeros(len(H)))
    whole, keep = quadratic.objective(), Stride(1)
    trees = [hessian.gradient(quadratic.objective([t]), theta0) for t in range(len(deltas))]
    M = gradient_curvature(lambda v: hessian.product(whole, theta0, v), trees, [keep(g) for g in trees], keep)
    return Mixture(quadratic, theta0, M)


def balanced_splits(tasks: int, groups: int = 2) -> np.ndarray:
    """Every way to deal the datasets into numbered groups of one size."""
    if groups == 1:
        return np.zeros((1, tasks), np.int32)
    rows, size = [], tasks // groups
    for members in combinations(range(tasks), size):
        rest = np.setdiff1d(np.arange(tasks), members)
        for inner in balanced_splits(len(rest), groups - 1):
            row = np.zeros(tasks, np.int32)
            row[rest] = inner + 1
            rows.append(row)
    return np.array(rows)


def signs(split: np.ndarray) -> np.ndarray:
    """The signs s ∈ {±1}^T of a split into two."""
    return 1 - 2 * np.asarray(split, np.float64)


def group_members(split: np.ndarray) -> list[list[int]]:
    """The datasets of each group."""
    return [np.flatnonzero(split == k).tolist() for k in range(int(split.max()) + 1)]
