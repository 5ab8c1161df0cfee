"""What each branch trains on: datasets by group, full copies, or a slice of every dataset."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from merit_jax.seeds import fold
from merit_jax.types import Branch, Share


def from_groups(names: Sequence[str], groups: Int32[np.ndarray, " t"], seed: int) -> tuple[Branch, ...]:
    """One branch per group of datasets, each dataset whole and in exactly one branch (MERIT Alg. 1, step 4).

    With one group this is joint training, and equal to the first branch of `replicate`.

    Args:
        names: Names of the datasets.
        groups: Group of each dataset, 0..K-1, every group in use.
        seed: The run's data seed.

    Raises:
        ValueError: Lengths differ, or the groups are not numbered 0..K-1.
    """
    groups = np.asarray(groups)
    if len(groups) != len(names):
        raise ValueError(f"got {len(groups)} group numbers for {len(names)} datasets; expected one for each")
    present = np.unique(groups).tolist()
    if not present or present != list(range(len(present))):
        raise ValueError(f"groups must be numbered 0..K-1 with none empty; got the numbers {present}")
    return tuple(
        Branch(tuple(Share(name) for name, group in zip(names, groups, strict=True) if group == k), _data_seed(seed, k))
        for k in present
    )


def replicate(names: Sequence[str], k: int, seed: int) -> tuple[Branch, ...]:
    """Everything in each of k branches, in k different data orders: a uniform soup.

    Args:
        names: Names of the datasets.
        k: Number of branches.
        seed: The run's data seed.

    Raises:
        ValueError: k < 1.
    """
    _at_least_one(k)
    return tuple(Branch(tuple(Share(name) for name in names), _data_seed(seed, i)) for i in range(k))


def examples(names: Sequence[str], k: int, seed: int) -> tuple[Branch, ...]:
    """The i-th of k slices of every dataset in branch i: a split without conflict, the i.i.d. control.

    Args:
        names: Names of the datasets.
        k: Number of branches.
        seed: The run's data seed.

    Raises:
        ValueError: k < 1.
    """
    _at_least_one(k)
    return tuple(Branch(tuple(Share(name, i, k) for name in names), _data_seed(seed, i)) for i in range(k))


def _data_seed(seed: int, k: int) -> int:
    """The data-order seed of branch k: of its number alone, so that runs which share a branch share its order."""
    return fold(seed, "branch", str(k))


def _at_least_one(k: int) -> None:
    if k < 1:
        raise ValueError(f"got {k} branches; expected at least 1")
