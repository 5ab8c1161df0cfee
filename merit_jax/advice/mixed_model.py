"""Bayesian linear regression with random effects: a law that holds in all worlds, and each world's own departure from it.

The gain of method m on mixture x in world w, with features φ of the method:

    y = φ·(a + B x) + φ·u_w + v_cm + j_cs + e        a, B, u, v, j, e ~ N(0, variance of each kind · I)

u is the world's departure from the law, v that of one method in one cell, j the noise of joint training's score, which all gains
of a seed share, and e the noise of a run. The six variances maximise the marginal likelihood times a weak prior (type II maximum
a posteriori; Rasmussen & Williams 2006, sections 2.2 and 5.4.1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from merit_jax.core.types import Array

PRIOR = (-2.0, 2.0)
"""Mean and standard deviation of a variance's logarithm, where the gains have mean square 1."""

JITTER = 1e-6
"""Share of the mean square that is added to the diagonal."""

KINDS = ("law", "interaction", "world", "method", "joint", "run")
"""The variances, in order."""


class Data(NamedTuple):
    """Observed gains.

    Attributes:
        methods: φ of each.
        mixtures: x of each, standardised.
        worlds: Name of each's world.
        cells: Of its cell.
        names: Of its method.
        seeds: Of its seed.
        gains: y.
    """

    methods: Float[np.ndarray, "n p"]
    mixtures: Float[np.ndarray, "n d"]
    worlds: Sequence[str]
    cells: Sequence[str]
    names: Sequence[str]
    seeds: Sequence[int]
    gains: Float[np.ndarray, " n"]


class Posterior(NamedTuple):
    """The law, as far as the observations tell.

    Attributes:
        mean: Of the coefficients.
        covariance: Of the coefficients.
        variances: By `KINDS`, of each kind's coefficients or effects.
    """

    mean: Float[np.ndarray, " q"]
    covariance: Float[np.ndarray, "q q"]
    variances: Float[np.ndarray, " 6"]


def fit(data: Data, start: Float[np.ndarray, " 6"] | None = None) -> Posterior:
    """Fits variances and coefficients.

    Args:
        data: The observations.
        start: Variances to begin with; None: those of the prior's mean.

    Returns:
        The posterior, of coefficients (a, B) as `design` orders them.
    """
    scale = float(np.mean(data.gains**2)) or 1.0
    y, blocks = data.gains / np.sqrt(scale), _blocks(data)
    begin = np.full(len(KINDS), PRIOR[0]) if start is None else np.log(np.maximum(start / scale, 1e-6))
    with threadpool_limits(1, "blas"):  # matrices of a few hundred rows: threads would wait for each other
        bounds = [(-14, 6)] * len(KINDS)
        variances = np.exp(minimize(_objective, begin, (y, blocks), jac=True, method="L-BFGS-B", bounds=bounds).x)
        Z = design(data.methods, data.mixtures)
        prior = np.repeat(variances[:2], (data.methods.shape[1], Z.shape[1] - data.methods.shape[1]))
        factor = cho_factor(_covariance(variances, blocks), lower=True)
        mean = prior * (Z.T @ cho_solve(factor, y))
        explained = (prior[:, None] * Z.T) @ cho_solve(factor, Z * prior)
    return Posterior(np.sqrt(scale) * mean, scale * (np.diag(prior) - explained), scale * variances)


def design(methods: Float[Array, "n p"], mixtures: Float[Array, "n d"]) -> Float[np.ndarray, "n q"]:
    """Returns what the coefficients multiply: `φ/√p`, then the products `φ_i x_j / √(p d)`.

    Examples:
        >>> design(np.array([[2.0]]), np.array([[3.0]])).tolist()
        [[2.0, 6.0]]
    """
    phi, x = np.asarray(methods, np.float64), np.asarray(mixtures, np.float64)
    phi = phi / np.sqrt(phi.shape[1])
    products = phi[:, :, None] * x[:, None, :] / np.sqrt(max(x.shape[1], 1))
    return np.hstack([phi, products.reshape(len(phi), -1)])


def _blocks(data: Data) -> np.ndarray:
    """Covariance of the observations under a variance of 1 of each kind."""

    def same(*keys: Sequence[object]) -> np.ndarray:
        codes = [np.unique(np.asarray(key), return_inverse=True)[1] for key in keys]
        return np.all([code[:, None] == code for code in codes], axis=0).astype(np.float64)

    p = data.methods.shape[1]
    Z = design(data.methods, data.mixtures)
    law, rest = Z[:, :p] @ Z[:, :p].T, Z[:, p:] @ Z[:, p:].T
    return np.stack(
        [
            law,
            rest,
            law * same(data.worlds),
            same(data.cells, data.names),
            same(data.cells, data.seeds),
            np.eye(len(law)),
        ]
    )


def _covariance(variances: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    return np.tensordot(variances, blocks, axes=1) + JITTER * np.eye(blocks.shape[1])


def _objective(logs: np.ndarray, y: np.ndarray, blocks: np.ndarray) -> tuple[float, np.ndarray]:
    """The negative logarithm of likelihood times prior, and its gradient."""
    variances = np.exp(logs)
    factor = cho_factor(_covariance(variances, blocks), lower=True)
    alpha, inverse = cho_solve(factor, y), cho_solve(factor, np.eye(len(y)))
    offset = (logs - PRIOR[0]) / PRIOR[1]
    value = 0.5 * y @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * (offset**2).sum()
    slopes = 0.5 * np.einsum("kij,ij->k", blocks, inverse - np.outer(alpha, alpha)) * variances
    return float(value), slopes + offset / PRIOR[1]
