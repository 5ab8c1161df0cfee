"""Groups whose gradients are as alike as balanced groups can be: the opposite of the median split."""

import numpy as np
from jaxtyping import Float, Int64

from merit_jax.partition.partitioner import Groups, Samples, Scores, Similarity, checked, needed
from merit_jax.partition.random import random

SWEEPS = 100
"""Most sweeps over the datasets; some ten are enough for hundreds of datasets."""


def alike(
    scores: Scores, samples: Samples, *, similarity: Similarity = None, groups: int | None = None, seed: int = 0
) -> Groups:
    """Deals conflicting datasets over all groups, so that each group's gradient is close to the whole mixture's.

    From the random split of the seed, two datasets of different groups change places as long as that brings the groups' summed
    unit gradients `u_k = Σ_{t in k} s_t g_t / |g_t|` closer together (their sum is always the mixture's, so that is where
    `Σ_k |u_k|²` is least) and leaves no group farther from an equal share of the samples than the random split leaves one. What
    comes out is a local minimum over such changes.

    Raises:
        ValueError: No similarity, `groups` is not a power of two, or there are fewer datasets than groups.

    Examples:
        >>> C = np.array([[1, 0.8, -0.9, -0.7], [0.8, 1, -0.6, -0.8], [-0.9, -0.6, 1, 0.5], [-0.7, -0.8, 0.5, 1]])
        >>> groups = alike(np.zeros((4, 1)), [1, 1, 1, 1], similarity=C)
        >>> bool(groups[0] != groups[1]), bool(groups[2] != groups[3])
        (True, True)
    """
    result = random(scores, samples, groups=groups, seed=seed)
    _, counts = checked(scores, samples)
    weights = counts.astype(np.float64)
    gram = needed(similarity, len(counts), "alike") * np.outer(weights, weights)
    member = (result[:, None] == np.arange(result.max() + 1)).astype(np.float64)
    along = gram @ member  # of each dataset's weighted unit gradient with each group's sum
    sizes = counts @ member.astype(np.int64)
    room = int(np.abs(member.shape[1] * sizes - sizes.sum()).max())
    tiny = 1e-9 * np.diag(gram).max()
    for _ in range(SWEEPS):
        changed = False
        for one in range(len(counts)):
            gains = _gains(one, gram, along, result)
            gains[~_balanced(one, counts, sizes, result, room)] = 0
            other = int(np.argmin(gains))
            if gains[other] < -tiny:
                change = gram[:, other] - gram[:, one]
                along[:, result[one]] += change
                along[:, result[other]] -= change
                sizes[result[one]] += counts[other] - counts[one]
                sizes[result[other]] -= counts[other] - counts[one]
                result[one], result[other] = result[other], result[one]
                changed = True
        if not changed:
            break
    return result


def _gains(
    one: int, gram: Float[np.ndarray, "t t"], along: Float[np.ndarray, "t k"], groups: Groups
) -> Float[np.ndarray, " t"]:
    """Change of `Σ_k |u_k|²` where a dataset changes places with each other one; nothing changes within a group."""
    own = groups[one]
    rows = np.arange(len(groups))
    linear = along[:, own] - along[one, own] - along[rows, groups] + along[one, groups]
    distances = gram[one, one] + np.diag(gram) - 2 * gram[one]
    return np.where(groups == own, 0.0, 2 * (linear + distances))


def _balanced(
    one: int, counts: Int64[np.ndarray, " t"], sizes: Int64[np.ndarray, " k"], groups: Groups, room: int
) -> np.ndarray:
    """Tells, of each other dataset, if both groups stay near enough to an equal share where `one` changes places with it."""
    more, total = counts - counts[one], sizes.sum()
    own = np.abs(len(sizes) * (sizes[groups[one]] + more) - total)
    others = np.abs(len(sizes) * (sizes[groups] - more) - total)
    return np.maximum(own, others) <= room
