"""Branches and what they train on: datasets by group, full copies, or a slice of every dataset."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from merit_jax.core.seeds import fold
from merit_jax.core.types import Branch, DatasetSlice


def from_groups(names: Sequence[str], groups: Int32[np.ndarray, " t"], seed: int) -> tuple[Branch, ...]:
    """Makes one branch per group of datasets, each dataset whole and in exactly one branch (MERIT Alg. 1, step 4).

    With one group this is joint training, and equal to the first branch of `replicate`.

    Args:
        names: Names of the datasets.
        groups: Group of each dataset, 0..K-1, every group in use.
        seed: The run's data seed.

    Raises:
        ValueError: Lengths differ, or the groups are not numbered 0..K-1.

    Examples:
        >>> branches = from_groups(["add", "sort", "copy"], np.array([1, 0, 1], np.int32), seed=0)
        >>> [[share.dataset for share in branch.shares] for branch in branches]
        [['sort'], ['add', 'copy']]
    """
    groups = np.asarray(groups)
    if len(groups) != len(names):
        raise ValueError(f"got {len(groups)} group numbers for {len(names)} datasets; expected one for each")
    present = np.unique(groups).tolist()
    if not present or present != list(range(len(present))):
        raise ValueError(f"groups must be numbered 0..K-1 with none empty; got the numbers {present}")
    return tuple(
        Branch(
            tuple(DatasetSlice(name) for name, group in zip(names, groups, strict=True) if group == k),
            _data_seed(seed, k),
        )
        for k in present
    )


def from_shares(shares: Sequence[Sequence[DatasetSlice]], seed: int) -> tuple[Branch, ...]:
    """Makes one branch per list of shares, as another run has them, in data orders of this run.

    Args:
        shares: The shares of each branch.
        seed: The run's data seed.
    """
    return tuple(Branch(tuple(some), _data_seed(seed, k)) for k, some in enumerate(shares))


def replicate(names: Sequence[str], k: int, seed: int) -> tuple[Branch, ...]:
    """Puts everything into each of k branches, in k different data orders: a uniform soup.

    Args:
        names: Names of the datasets.
        k: Number of branches.
        seed: The run's data seed.

    Raises:
        ValueError: k < 1.
    """
    _at_least_one(k)
    return tuple(Branch(tuple(DatasetSlice(name) for name in names), _data_seed(seed, i)) for i in range(k))


def divided(names: Sequence[str], counts: Int64[np.ndarray, "t k"], seed: int) -> tuple[Branch, ...]:
    """Makes branches of so many examples of each dataset, which are consecutive slices of its shuffle.

    A dataset that is whole in one branch is there as `from_groups` puts it; equal slices are those of `examples`.

    Args:
        names: Names of the datasets.
        counts: Training examples of each dataset in each branch.
        seed: The run's data seed.

    Raises:
        ValueError: Shapes differ, a count is negative, or a dataset or a branch has no examples.

    Examples:
        >>> [branch.shares for branch in divided(["add"], np.array([[10, 30]]), seed=0)]
        [(DatasetSlice(dataset='add', part=0, parts=4, width=1),), (DatasetSlice(dataset='add', part=1, parts=4, width=3),)]
    """
    counts = np.asarray(counts)
    if (
        counts.ndim != 2
        or len(counts) != len(names)
        or (counts < 0).any()
        or not (counts.sum(0).all() and counts.sum(1).all())
    ):
        raise ValueError(
            f"got counts {counts.tolist()} of {len(names)} datasets; expected a row of numbers of examples for each, and no row "
            "or column of zeros"
        )
    totals, starts = counts.sum(axis=1).tolist(), np.cumsum(counts, axis=1) - counts
    branches = []
    for k, (first, own) in enumerate(zip(starts.T.tolist(), counts.T.tolist(), strict=True)):
        rows = zip(names, first, own, totals, strict=True)
        branches.append(Branch(tuple(_slice(name, *row) for name, *row in rows if row[1]), _data_seed(seed, k)))
    return tuple(branches)


def examples(names: Sequence[str], k: int, seed: int) -> tuple[Branch, ...]:
    """Puts the i-th of k slices of every dataset into branch i: a split without conflict, the i.i.d. control.

    Args:
        names: Names of the datasets.
        k: Number of branches.
        seed: The run's data seed.

    Raises:
        ValueError: k < 1.
    """
    _at_least_one(k)
    return tuple(Branch(tuple(DatasetSlice(name, i, k) for name in names), _data_seed(seed, i)) for i in range(k))


ASSIGNMENTS = {"replicate": replicate, "examples": examples}
"""Name of a way to branch that does not group datasets -> `(names, k, seed) -> branches`."""


BESIDE = ("inputs", "datasets", "sites")
"""Keys of `partition.json` beside those of the partition."""


class Partition(NamedTuple):
    """The branches of a run, as `partition.json` has them.

    Attributes:
        method: Name of the partitioner.
        branches: The data of each branch.
        samples: Training examples per branch and epoch.
        tokens: Supervised training tokens per branch and epoch; a slice of a dataset counts its part of the dataset's.
    """

    method: str
    branches: tuple[Branch, ...]
    samples: tuple[int, ...]
    tokens: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; a share is as `DatasetSlice.to_list` has it."""
        rows = [
            {
                "shares": [share.to_list() for share in branch.shares],
                "seed": branch.seed,
                "samples": samples,
                "tokens": tokens,
            }
            for branch, samples, tokens in zip(self.branches, self.samples, self.tokens, strict=True)
        ]
        return {"method": self.method, "branches": rows}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> "Partition":
        """Reads `to_dict`'s result back.

        Args:
            data: The parsed JSON.
            where: The file it came from, for error messages.

        Raises:
            ValueError: Keys are missing or unknown, or a share is not [dataset, part, parts] with or without a width.
        """
        _expect_keys(data, {"method", "branches"}, where, beside=BESIDE)
        branches, samples, tokens = [], [], []
        for index, row in enumerate(data["branches"]):
            _expect_keys(row, {"shares", "seed", "samples", "tokens"}, f"{where}, branch {index}")
            branches.append(
                Branch(tuple(_share(share, f"{where}, branch {index}") for share in row["shares"]), row["seed"])
            )
            samples.append(row["samples"])
            tokens.append(row["tokens"])
        if not branches:
            raise ValueError(f"{where}: no branches")
        return cls(data["method"], tuple(branches), tuple(samples), tuple(tokens))


def make_partition(method: str, branches: Sequence[Branch], counts: Mapping[str, tuple[int, int]]) -> Partition:
    """Counts the samples and tokens of branches.

    Args:
        method: Name of the partitioner.
        branches: The data of each branch.
        counts: Dataset -> (training examples, supervised training tokens).

    Examples:
        >>> halves = examples(["add"], k=2, seed=0)
        >>> make_partition("examples", halves, {"add": (5, 41)}).samples
        (2, 3)
    """

    def total(branch: Branch, which: int) -> int:
        return sum(
            stop - start for start, stop in (share.within(counts[share.dataset][which]) for share in branch.shares)
        )

    samples, tokens = (tuple(total(branch, which) for branch in branches) for which in (0, 1))
    return Partition(method, tuple(branches), samples, tokens)


def _slice(name: str, start: int, count: int, of: int) -> DatasetSlice:
    """The slice of `count` of `of` examples, in the fewest parts."""
    unit = math.gcd(start, of, count)
    return DatasetSlice(name, start // unit, of // unit, count // unit)


def _share(value: Any, where: str) -> DatasetSlice:
    match value:
        case [str(), int(), int()] | [str(), int(), int(), int()] if DatasetSlice(*value).is_sound:
            return DatasetSlice(*value)
    raise ValueError(
        f"{where}: a share is [dataset, part, parts] or [dataset, part, parts, width] with 0 <= part < part + width <= parts; "
        f"got {value!r}"
    )


def _expect_keys(data: Any, keys: set[str], where: str, beside: Collection[str] = ()) -> None:
    got = set(data) - set(beside) if isinstance(data, Mapping) else set()
    if got != keys:
        raise ValueError(
            f"{where}: missing keys {sorted(keys - got)}, unknown keys {sorted(got - keys)}; expected {sorted(keys)}; delete it "
            "and run its stage again"
        )


def _data_seed(seed: int, k: int) -> int:
    """The data-order seed of branch k: of its number alone, so that runs which share a branch share its order."""
    return fold(seed, "branch", str(k))


def _at_least_one(k: int) -> None:
    if k < 1:
        raise ValueError(f"got {k} branches; expected at least 1")
