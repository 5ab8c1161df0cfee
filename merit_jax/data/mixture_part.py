"""Restricts the datasets of a mixture to a part of their training examples."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from merit_jax.core.seeds import fold
from merit_jax.core.types import Dataset
from merit_jax.data.token_cache import TokenTable, as_table
from merit_jax.data.weights import visited_digest, with_visits


def dataset_part(dataset: Dataset, first: int, last: int, seed: int) -> Dataset:
    """Returns a dataset of the `first`-th to `last`-th visit of the dataset's shuffled training examples, `last` excluded.

    The shuffle depends on `seed` and the dataset's name only, so that parts whose bounds do not overlap are disjoint; an example
    that the dataset visits several times may have visits in several parts. Held-out records stay, and so do the counts of flawed
    and truncated rows, which are those of the whole dataset.

    Args:
        dataset: The whole dataset.
        first: Place of the first visit in the shuffle.
        last: Place behind the last one.
        seed: The run's seed.

    Raises:
        ValueError: The bounds are not those of a part, or the part is empty.

    Examples:
        >>> from merit_jax.core.types import Example, ReadReport
        >>> rows = [Example(np.array([7, i], np.int32), np.array([False, True])) for i in range(5)]
        >>> whole = Dataset("copy", rows, (), ReadReport(("copy.jsonl",), "5e1f", 5, 0, 5, 10))
        >>> parts = [dataset_part(whole, first, last, seed=0) for first, last in ((0, 2), (2, 5))]
        >>> [part.report.rows for part in parts], sorted(int(e.tokens[1]) for part in parts for e in part.train)
        ([2, 3], [0, 1, 2, 3, 4])
    """
    count = dataset.visit_count
    if not 0 <= first < last <= count:
        raise ValueError(
            f"dataset {dataset.name!r}: examples {first} to {last} of {count} are no part of it; expected at least one"
        )
    order = np.random.default_rng(fold(seed, "part", dataset.name)).permutation(count)
    chosen = np.sort(order[first:last])
    rows = chosen if dataset.visits is None else dataset.visits[chosen]
    examples, visits = np.unique(rows, return_inverse=True)
    mark = repr((visited_digest(dataset), dataset.name, seed, first, last))
    report = dataset.report._replace(digest=hashlib.sha256(mark.encode()).hexdigest())
    part = dataset._replace(train=take_rows(as_table(dataset.train), examples), report=report)
    found = with_visits(part, np.sort(visits))
    return found if dataset.visits is not None else found._replace(visits=None)


def take_rows(table: TokenTable, rows: Sequence[int] | Int64[np.ndarray, " m"]) -> TokenTable:
    """Returns a table of some rows of another, in the order given, in arrays of its own.

    Args:
        table: All rows.
        rows: Numbers of those wanted, from 0.

    Examples:
        >>> from merit_jax.core.types import Example
        >>> table = as_table([Example(np.arange(n, dtype=np.int32), np.ones(n, bool)) for n in (2, 1, 3)])
        >>> part = take_rows(table, [2, 1])
        >>> part.tokens.tolist(), part.offsets.tolist()
        ([0, 1, 2, 0], [0, 3, 4])
    """
    rows = np.asarray(rows, np.int64)
    lengths = table.lengths[rows]
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    places = np.arange(offsets[-1]) + np.repeat(table.offsets[rows] - offsets[:-1], lengths)
    images = [table.images[row] for row in rows.tolist()] if table.images else ()
    return TokenTable(table.tokens[places], table.supervised[places], table.counts, offsets, images)
