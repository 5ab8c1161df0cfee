"""Groups of datasets: the sample-balanced median split (MERIT Alg. 1, step 3) and the table of all partitioners."""

from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from merit_jax.core.types import Array
from merit_jax.partition.baselines import conflict_induced, kmeans
from merit_jax.partition.validation import Groups, Samples, checked, enough


class Partitioner(Protocol):
    """Assigns each dataset to a group, and leaves no group empty."""

    def __call__(
        self,
        scores: Float[Array, "t r"],
        samples: Samples,
        *,
        similarity: Float[Array, "t t"] | None = None,
        groups: int | None = None,
        seed: int = 0,
    ) -> Groups:
        """Group of each dataset.

        Args:
            scores: z, the place of each dataset along each conflict axis.
            samples: Training examples per dataset, s_t.
            similarity: C, for those that use it.
            groups: Number of groups; None: 2^r, or one for joint training.
            seed: Seed, for those that draw at random.

        Raises:
            ValueError: The method cannot make that many non-empty groups of these datasets.
        """


def median_split(
    scores: Float[Array, "t r"],
    samples: Samples,
    *,
    similarity: Float[Array, "t t"] | None = None,
    groups: int | None = None,
    seed: int = 0,
) -> Groups:
    """Halves the datasets along axis 1, each half along axis 2, ..., at the sample-weighted median: K = 2^r groups.

    Within a group the datasets are ordered by score, ties by index, and cut where the sample counts of the two sides
    are as equal as possible, each side keeping enough datasets for the cuts still to come.

    Raises:
        ValueError: Fewer than 2^r datasets, or `groups` is not 2^r.
    """
    scores, samples = checked(scores, samples)
    rank = scores.shape[1]
    if groups not in (None, 2**rank):
        raise ValueError(f"{groups} groups asked for, but {rank} axes make {2**rank}; give one axis per halving")
    enough(len(samples), 2**rank)
    result = np.zeros(len(samples), np.int32)
    for depth in range(rank):
        keep = 2 ** (rank - depth - 1)
        for group in range(0, 2**rank, 2 * keep):
            members = np.flatnonzero(result == group)
            ordered = members[np.argsort(scores[members, depth], kind="stable")]
            result[ordered[_cut(samples[ordered], keep) :]] += keep
    return result


def joint(
    scores: Float[Array, "t r"],
    samples: Samples,
    *,
    similarity: Float[Array, "t t"] | None = None,
    groups: int | None = None,
    seed: int = 0,
) -> Groups:
    """Every dataset in one group: joint training.

    Raises:
        ValueError: `groups` is another number than 1.
    """
    _, samples = checked(scores, samples)
    if groups not in (None, 1):
        raise ValueError(f"{groups} groups asked for, but joint training has one")
    return np.zeros(len(samples), np.int32)


def random(
    scores: Float[Array, "t r"],
    samples: Samples,
    *,
    similarity: Float[Array, "t t"] | None = None,
    groups: int | None = None,
    seed: int = 0,
) -> Groups:
    """`median_split` on Gaussian scores: the same balance, along axes that mean nothing.

    Raises:
        ValueError: `groups` is not a power of two, or there are fewer datasets than groups.
    """
    scores, samples = checked(scores, samples)
    count = 2 ** scores.shape[1] if groups is None else groups
    rank = max(count, 1).bit_length() - 1
    if count != 2**rank:
        raise ValueError(f"{count} groups asked for; a balanced random split makes a power of two")
    return median_split(np.random.default_rng(seed).standard_normal((len(samples), rank)), samples)


PARTITIONERS: dict[str, Partitioner] = {
    "median_split": median_split,
    "joint": joint,
    "random": random,
    "kmeans": kmeans,
    "conflict_induced": conflict_induced,
}
"""Name of a way to group datasets -> the function."""


def _cut(samples: Int[np.ndarray, " n"], keep: int) -> int:
    """Length of the lower side: |lower − upper| least, `keep` or more datasets on each side, first of equal cuts."""
    cuts = np.arange(keep, len(samples) - keep + 1)
    lower = np.cumsum(samples)[cuts - 1]
    return int(cuts[np.argmin(np.abs(2 * lower - samples.sum()))])
