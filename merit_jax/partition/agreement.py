"""Agreement of two partitions, however their groups are numbered."""

import numpy as np
import scipy
from jaxtyping import Int


def moved(groups: Int[np.ndarray, " t"], other: Int[np.ndarray, " t"]) -> Int[np.ndarray, " n"]:
    """Returns the datasets that are in another group, with the other's groups numbered so that they are fewest.

    Examples:
        >>> moved(np.array([0, 0, 1, 1]), np.array([1, 1, 1, 0])).tolist()
        [2]
    """
    count = 1 + int(max(groups.max(), other.max()))
    together = np.zeros((count, count), np.int64)
    np.add.at(together, (groups, other), 1)
    ours, theirs = scipy.optimize.linear_sum_assignment(together, maximize=True)
    name = np.empty(count, groups.dtype)
    name[theirs] = ours
    return np.flatnonzero(groups != name[other])
