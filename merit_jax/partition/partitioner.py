"""A partitioner: a function from conflict scores to groups, and the checks that all of them share."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int, Int32

from merit_jax.core.types import Array

Scores = Float[Array, "t r"]
"""z, the place of each dataset along each conflict axis."""

Samples = Int[Array, " t"] | Sequence[int]
"""Training examples per dataset, s_t."""

Similarity = Float[Array, "t t"] | None
"""C, for those that use it."""

Shares = Float[np.ndarray, "t k"]
"""The share of each dataset in each branch; a row sums to one."""

Groups = Int32[np.ndarray, " t"]
"""Group of each dataset, 0..K-1, every group in use."""

TIE = 1e-6
"""Difference of two scores on an axis, as a part of the largest score on any axis, up to which rounding may have made it."""


class AssignGroups(Protocol):
    """A function that assigns each dataset to a group and leaves no group empty."""

    def __call__(
        self,
        scores: Scores,
        samples: Samples,
        *,
        similarity: Similarity = None,
        groups: int | None = None,
        seed: int = 0,
    ) -> Groups:
        """Assigns datasets to groups.

        Args:
            scores: z_t.
            samples: s_t.
            similarity: C, for those that use it.
            groups: Number of groups; None: 2^r, or one for joint training.
            seed: Seed, for those that draw at random.

        Raises:
            ValueError: The method cannot make that many non-empty groups of these datasets.
        """


class AssignShares(Protocol):
    """A function that divides each dataset between branches."""

    def __call__(
        self, scores: Scores, samples: Samples, *, groups: int | None = None, seed: int = 0, softness: float
    ) -> Shares:
        """Returns the share of each dataset in each branch.

        Args:
            scores: z_t.
            samples: s_t.
            groups: Number of branches; None: 2^r.
            seed: Seed, for those that draw at random.
            softness: From 0, where every dataset is whole in its group, to 1, where all branches are alike.
        """


class Partitioner(NamedTuple):
    """A way to group datasets, called as its function is.

    Attributes:
        assign: `(scores, samples, *, similarity, groups, seed) -> groups`.
        uses_gradients: Whether it looks at scores or similarities; the others need no gradients.
        soft: The same with datasets divided between groups; None for one that has no such form.
    """

    assign: AssignGroups
    uses_gradients: bool = False
    soft: AssignShares | None = None

    def __call__(self, scores: Scores, samples: Samples, **options: Any) -> Groups:
        """Assigns datasets to groups, with the arguments of `AssignGroups` and the method's own."""
        return self.assign(scores, samples, **options)


def checked(scores: Scores, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Returns host copies of one finite row of scores, ties made equal, and one positive sample count per dataset."""
    scores, counts = np.asarray(scores), np.asarray(samples)
    if scores.ndim != 2:
        raise ValueError(f"got scores of shape {scores.shape}; expected [datasets, axes]")
    samples = counts.astype(np.int64)
    if (samples != counts).any():
        raise ValueError(f"sample counts must be whole numbers; got {counts.tolist()}")
    if len(scores) != len(samples) or not len(samples):
        raise ValueError(f"got scores of {len(scores)} datasets and sample counts of {len(samples)}; expected one each")
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
        raise ValueError(f"scores of datasets {rows} are not finite; look at their gradients")
    if (samples < 1).any():
        raise ValueError(f"datasets {np.flatnonzero(samples < 1).tolist()} have no samples; leave them out")
    return _with_ties(scores), samples


def _with_ties(scores: np.ndarray) -> np.ndarray:
    """Gives neighbours on an axis that differ by rounding alone one score, the lowest, so that it cannot order duplicates."""
    if not scores.size:
        return scores
    order = np.argsort(scores, axis=0, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=0)
    apart = np.diff(ordered, axis=0) > TIE * np.abs(scores).max()
    start = np.maximum.accumulate(np.insert(apart * np.arange(1, len(scores))[:, None], 0, 0, axis=0), axis=0)
    result = np.empty_like(scores)
    np.put_along_axis(result, order, np.take_along_axis(ordered, start, axis=0), axis=0)
    return result


def enough(datasets: int, groups: int) -> None:
    """Refuses a number of groups that would leave one empty."""
    if not 1 <= groups <= datasets:
        raise ValueError(f"cannot make {groups} non-empty groups of {datasets} datasets; ask for 1 to {datasets}")


def needed(similarity: Similarity, datasets: int, method: str) -> Float[np.ndarray, "t t"]:
    """Returns the similarity matrix that a method needs, or says how to get it."""
    if similarity is None:
        raise ValueError(
            f"{method} needs the similarity matrix of its {datasets} datasets; got none (where it was too large to keep: raise "
            "conflict.similarity_bytes, delete conflict.npz and run the conflict stage again)"
        )
    C = np.asarray(similarity, np.float64)
    if C.shape != (datasets, datasets):
        raise ValueError(
            f"got similarities of shape {C.shape} for {datasets} datasets; expected one row and column each"
        )
    return C
