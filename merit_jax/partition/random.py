"""A random split with the balance of the median split."""

import numpy as np
from jaxtyping import Float

from merit_jax.partition.median_split import median_split, soft_median_split
from merit_jax.partition.partitioner import Groups, Samples, Scores, Shares, Similarity, checked


def random(
    scores: Scores, samples: Samples, *, similarity: Similarity = None, groups: int | None = None, seed: int = 0
) -> Groups:
    """Applies `median_split` to Gaussian scores: the same balance, along axes that mean nothing.

    Raises:
        ValueError: `groups` is not a power of two, or there are fewer datasets than groups.

    Examples:
        >>> groups = random(np.zeros((4, 1)), samples=[1, 1, 1, 1], seed=3)
        >>> sorted(groups.tolist())
        [0, 0, 1, 1]
    """
    return median_split(_axes(scores, samples, groups, seed), samples)


def soft_random(
    scores: Scores, samples: Samples, *, groups: int | None = None, seed: int = 0, softness: float
) -> Shares:
    """Applies `soft_median_split` to the scores of `random`.

    Raises:
        ValueError: As for both.

    Examples:
        >>> soft_random(np.zeros((4, 1)), samples=[1, 1, 1, 1], seed=3, softness=1.0).tolist()[0]
        [0.5, 0.5]
    """
    return soft_median_split(_axes(scores, samples, groups, seed), samples, softness=softness)


def _axes(scores: Scores, samples: Samples, groups: int | None, seed: int) -> Float[np.ndarray, "t axes"]:
    scores, samples = checked(scores, samples)
    count = 2 ** scores.shape[1] if groups is None else groups
    rank = max(count, 1).bit_length() - 1
    if count != 2**rank:
        raise ValueError(f"{count} groups requested; a balanced random split makes a power of two")
    return np.random.default_rng(seed).standard_normal((len(samples), rank))
