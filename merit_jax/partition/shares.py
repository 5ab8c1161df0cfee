"""Shares of datasets in several branches: a common core, soft splits, and exact counts of examples."""

import numpy as np
import scipy
from jaxtyping import Float, Int, Int64

from merit_jax.core.types import Array
from merit_jax.partition.partitioner import Samples, Shares

DECIMALS = 9
"""Decimals of a number of examples to which rounding errors of shares are taken back before it is rounded."""

TOLERANCE = 1e-9
"""Largest difference of a branch's share of all examples from the one that it is fitted to."""


def whole(groups: Int[np.ndarray, " t"], count: int) -> Shares:
    """Returns the shares of datasets that are whole in their group.

    Examples:
        >>> whole(np.array([1, 0]), 2).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return np.eye(count)[np.asarray(groups)]


def with_core(shares: Float[Array, "t k"], core: float | Float[Array, " t"]) -> Shares:
    """Deals a share of every dataset over all branches alike, and leaves the rest where it was.

    At 0 nothing changes; at 1 every branch has an equal slice of every dataset.

    Args:
        shares: The shares without a core.
        core: The share that is dealt, of all datasets or of each.

    Examples:
        >>> with_core(whole(np.array([1, 0]), 2), 0.5).tolist()
        [[0.25, 0.75], [0.75, 0.25]]
    """
    shares, dealt = np.asarray(shares, np.float64), np.asarray(core, np.float64).reshape(-1, 1)
    return (1 - dealt) * shares + dealt / shares.shape[1]


def exact_counts(shares: Float[Array, "t k"], samples: Samples) -> Int64[np.ndarray, "t k"]:
    """Rounds shares to numbers of examples: of each dataset all, in each branch the share's number or a neighbour of it.

    What a branch has lost by rounding in one dataset it is owed in the next, so that the branches' sums stay near theirs too.
    Of branches that are owed the same, the first one gets the example.

    Args:
        shares: p_tk.
        samples: s_t.

    Returns:
        n_tk with `Σ_k n_tk = s_t` and `|n_tk − p_tk s_t| < 1`.

    Examples:
        >>> exact_counts(np.full((3, 2), 0.5), [3, 3, 4]).tolist()
        [[2, 1], [1, 2], [2, 2]]
    """
    wanted = np.round(np.asarray(shares) * np.asarray(samples)[:, None], DECIMALS)
    counts, owed = np.floor(wanted).astype(np.int64), np.zeros(wanted.shape[1])
    for row, exact, total in zip(counts, wanted, np.asarray(samples).tolist(), strict=True):
        owed += exact - row
        part = exact > row
        order = np.argsort(np.where(part, -np.round(owed, DECIMALS), np.inf), kind="stable")
        given = order[: total - row.sum()]
        row[given] += 1
        owed[given] -= 1
    return counts


def balanced(log_shares: Float[Array, "t k"], samples: Samples, totals: Float[np.ndarray, " k"]) -> Shares:
    """Scales the columns of shares so that branches have given sizes: `p_tk ∝ a_tk exp(b_k)`, each row summing to one.

    It is the fit of least relative entropy to the shares (Deming & Stephan 1940). b minimises the convex
    `Σ_t s_t log Σ_k a_tk exp(b_k) − Σ_k N_k b_k`, whose gradient is the difference of the sizes; Newton's method finds it also
    where shares are nearly whole, and alternate scaling takes thousands of steps.

    Args:
        log_shares: log a_tk; −∞ stays a share of nothing.
        samples: s_t.
        totals: N_k, numbers of examples wanted in each branch; their sum is that of the samples.

    Examples:
        >>> balanced(np.log([[0.9, 0.1], [0.9, 0.1]]), [10, 10], np.array([10.0, 10.0])).round(6).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    logs, sizes = np.asarray(log_shares, np.float64), np.asarray(samples, np.float64)
    sizes, wanted = sizes / sizes.sum(), np.asarray(totals, np.float64) / np.sum(totals)

    def fitted(free: Float[np.ndarray, " free"]) -> Shares:
        return scipy.special.softmax(logs + np.append(free, 0.0), axis=1)

    def excess(free: Float[np.ndarray, " free"]) -> float:
        return float(sizes @ scipy.special.logsumexp(logs + np.append(free, 0.0), axis=1) - wanted[:-1] @ free)

    def gradient(free: Float[np.ndarray, " free"]) -> Float[np.ndarray, " free"]:
        return (sizes @ fitted(free) - wanted)[:-1]

    def hessian(free: Float[np.ndarray, " free"]) -> Float[np.ndarray, "free free"]:
        own = fitted(free)[:, :-1]
        return np.diag(sizes @ own) - (own * sizes[:, None]).T @ own

    start = np.zeros(logs.shape[1] - 1)
    found = scipy.optimize.minimize(
        excess, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": TOLERANCE}
    )
    return fitted(found.x)
