"""The sample-balanced median split (MERIT Alg. 1, step 3)."""

import numpy as np
from jaxtyping import Int

from merit_jax.partition.partitioner import Groups, Samples, Scores, Similarity, checked, enough


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


def _cut(samples: Int[np.ndarray, " n"], keep: int) -> int:
    """Length of the lower side: |lower − upper| least, `keep` or more datasets on each side, first of equal cuts."""
    cuts = np.arange(keep, len(samples) - keep + 1)
    lower = np.cumsum(samples)[cuts - 1]
    return int(cuts[np.argmin(np.abs(2 * lower - samples.sum()))])
