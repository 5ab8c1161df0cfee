"""The sample-balanced median split (MERIT Alg. 1, step 3)."""

from collections.abc import Sequence

import numpy as np
import scipy
from jaxtyping import Float, Int

from merit_jax.partition.partitioner import Groups, Samples, Scores, Shares, Similarity, checked, enough
from merit_jax.partition.shares import balanced, whole, with_core


def median_split(
    scores: Scores, samples: Samples, *, similarity: Similarity = None, groups: int | None = None, seed: int = 0
) -> Groups:
    """Halves the datasets along axis 1, each half along axis 2, ..., at the sample-weighted median: K = 2^r groups.

    Within a group the datasets are ordered by score and divided where the sample counts of the two sides are as equal as
    possible, each side keeping enough datasets for the cuts still to come. Of equally good cuts the first is taken.

    Scores that differ by no more than rounding (1e-6 of the largest score on any axis) tie, and ties go by index: in a run the
    datasets are sorted by name, so the split does not depend on the order of the mixture's files. Duplicates tie on every
    axis, and along an axis that does not exist (see `conflict.principal_axes`) all datasets do; a cut may go between them.

    Raises:
        ValueError: Fewer than 2^r datasets, or `groups` is not 2^r.

    Examples:
        >>> scores = np.array([[-2.0, 0.1], [-1.0, -0.1], [1.0, 0.4], [2.0, -0.3]])
        >>> median_split(scores, samples=[10, 10, 10, 10]).tolist()
        [1, 0, 3, 2]
        >>> median_split(scores[:, :1], samples=[10, 10, 10, 90]).tolist()
        [0, 0, 0, 1]

        Without conflict, everything ties:

        >>> median_split(np.zeros((4, 2)), samples=[10, 10, 10, 10]).tolist()
        [0, 1, 2, 3]
    """
    scores, samples = checked(scores, samples)
    rank = scores.shape[1]
    if groups not in (None, 2**rank):
        raise ValueError(f"{groups} groups requested, but {rank} axes make {2**rank}; give one axis per halving")
    enough(len(samples), 2**rank)
    result = np.zeros(len(samples), np.int32)
    for depth in range(rank):
        keep = 2 ** (rank - depth - 1)
        for group in range(0, 2**rank, 2 * keep):
            members = np.flatnonzero(result == group)
            ordered = members[np.argsort(scores[members, depth], kind="stable")]
            result[ordered[_cut(samples[ordered], keep) :]] += keep
    return result


def soft_median_split(
    scores: Scores, samples: Samples, *, groups: int | None = None, seed: int = 0, softness: float
) -> Shares:
    """Divides the datasets between the groups of `median_split` by their distances from its cuts.

    A cut at c on an axis whose scores have the standard deviation σ sends the part `1 / (1 + exp(−(z − c) / (τ σ)))` of a
    dataset to its upper side, with τ = softness / (1 − softness); the share of a group is the product along its cuts. The
    branches' sizes are then fitted to those that the hard split has, and for a softness of 1 to equal ones.

    Datasets that tie at a cut are divided alike. At 0 it is `median_split`.

    Raises:
        ValueError: As for `median_split`, or the softness is not in [0, 1].

    Examples:
        >>> for softness in (0.0, 0.3, 1.0):
        ...     soft_median_split(np.array([[-2.0], [-1.0], [1.0], [2.0]]), [10] * 4, softness=softness)[:, 1].round(2).tolist()
        [0.0, 0.0, 1.0, 1.0]
        [0.05, 0.19, 0.81, 0.95]
        [0.5, 0.5, 0.5, 0.5]
    """
    if not 0 <= softness <= 1:
        raise ValueError(f"got a softness of {softness}; expected 0 (whole datasets) to 1 (slices)")
    found = median_split(scores, samples, groups=groups)
    scores, samples = checked(scores, samples)
    count, rank = 2 ** scores.shape[1], scores.shape[1]
    hard = whole(found, count)
    if softness in (0, 1):
        return hard if softness == 0 else with_core(hard, 1.0)
    width = softness / (1 - softness) * np.sqrt(np.average(scores**2, axis=0, weights=samples))
    logs = np.zeros((len(samples), count))
    for depth in range(rank):
        cuts = [_threshold(scores[:, depth], found, group, rank - depth - 1) for group in range(count)]
        sides = 2 * (np.arange(count) >> (rank - depth - 1) & 1) - 1
        logs += _log_part(scores[:, depth], cuts, sides, width[depth])
    sizes = samples @ hard
    return balanced(logs, samples, (1 - softness) * sizes + softness * samples.sum() / count)


def _threshold(scores: Float[np.ndarray, " t"], groups: Groups, group: int, below: int) -> float:
    """The middle between the two sides of the cut of one axis that a group lies behind, with `below` more axes to cut."""
    side = groups >> below
    lower, upper = (scores[side == 2 * (group >> below + 1) + bit] for bit in (0, 1))
    return float(lower.max() + upper.min()) / 2


def _log_part(
    scores: Float[np.ndarray, " t"], cuts: Sequence[float], sides: Int[np.ndarray, " k"], width: float
) -> Float[np.ndarray, "t k"]:
    """Logarithm of the part of each dataset on a side (1: upper) of each cut; of a half where the axis does not exist."""
    away = sides * (scores[:, None] - np.asarray(cuts))
    return scipy.special.log_expit(away / width) if width > 0 else np.full(away.shape, np.log(0.5))


def _cut(samples: Int[np.ndarray, " n"], keep: int) -> int:
    """Length of the lower side: |lower − upper| least, `keep` or more datasets on each side, first of equal cuts."""
    cuts = np.arange(keep, len(samples) - keep + 1)
    lower = np.cumsum(samples)[cuts - 1]
    return int(cuts[np.argmin(np.abs(2 * lower - samples.sum()))])
