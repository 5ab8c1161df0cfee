"""Arguments that every partitioner takes, and their checks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Int32

from merit_jax.core.types import Array

Groups = Int32[np.ndarray, " t"]


Samples = Int[Array, " t"] | Sequence[int]


def checked(scores: Float[Array, "t r"], samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Host copies of one finite row of scores and one positive sample count per dataset."""
    scores, samples = np.asarray(scores), np.asarray(samples, np.int64)
    if len(scores) != len(samples) or not len(samples):
        raise ValueError(f"got scores of {len(scores)} datasets and sample counts of {len(samples)}; expected one each")
    if not np.isfinite(scores).all():
        rows = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
        raise ValueError(f"scores of datasets {rows} are not finite; look at their gradients")
    if (samples < 1).any():
        raise ValueError(f"datasets {np.flatnonzero(samples < 1).tolist()} have no samples; leave them out")
    return scores, samples


def enough(datasets: int, groups: int) -> None:
    """Refuses a number of groups that would leave one empty."""
    if not 1 <= groups <= datasets:
        raise ValueError(f"cannot make {groups} non-empty groups of {datasets} datasets; ask for 1 to {datasets}")
