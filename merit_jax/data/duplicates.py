"""Datasets with the same examples, whatever their files are called, in whichever order or format they have them."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from etils import epath

from merit_jax.core.types import Dataset, Example, Image
from merit_jax.data.elsewhere import RowsElsewhere, is_elsewhere
from merit_jax.data.token_cache import as_table
from merit_jax.workdir.checksums import file_checksum


def content_digest(examples: Iterable[Example]) -> str:
    """Returns a sha256, in hex, of the examples of a dataset: their tokens, supervised ones and images, in any order.

    Images count by their bytes; those that are files are read.

    Raises:
        FileNotFoundError: An image's file does not exist.

    Examples:
        >>> import numpy as np
        >>> one = Example(np.array([5, 6], np.int32), np.array([False, True]))
        >>> two = Example(np.array([7, 8], np.int32), np.array([False, True]))
        >>> content_digest([one, two]) == content_digest([two, one])
        True
        >>> content_digest([one]) == content_digest([one, one])
        False
    """
    return rows_digest(map(row_digest, examples))


def rows_digest(rows: Iterable[bytes]) -> str:
    """Returns the `content_digest` of the examples that have these `row_digest`s."""
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


def content_marks(datasets: Sequence[Dataset]) -> list[tuple[str, ...]]:
    """Returns marks of each dataset, of which duplicates have one in common, for `first_with_a_mark`.

    One is the digest of its files, which copies of a file share even where each is sampled, or split from held-out rows, in its
    own way; not where there are images, which may be others of the same names. The other is that of its training examples, taken
    where another dataset has as many examples and tokens.
    """
    sizes = [dataset.report[2:6] for dataset in datasets]
    several = {size for size, number in Counter(sizes).items() if number > 1}
    return [(all_marks if size in several else files_mark)(d) for d, size in zip(datasets, sizes, strict=True)]


def all_marks(dataset: Dataset) -> tuple[str, ...]:
    """Returns both marks of a dataset; of one that is elsewhere, those that its record has."""
    return files_mark(dataset) if is_elsewhere(dataset) else (*files_mark(dataset), content_digest(dataset.train))


def files_mark(dataset: Dataset) -> tuple[str, ...]:
    """Returns the digest of a dataset's files; nothing where they name images."""
    if isinstance(dataset.train, RowsElsewhere):
        return dataset.train.marks
    return () if as_table(dataset.train).images else (dataset.report.digest,)


def first_with_a_mark(marks: Sequence[Iterable[str]]) -> list[int]:
    """Returns, for each of several things, the first one that has a mark in common with it, directly or through others.

    Examples:
        >>> first_with_a_mark([("a",), ("b",), ("c", "a"), ("b", "d"), ("e",)])
        [0, 1, 0, 1, 4]
        >>> first_with_a_mark([("a",), ("b",), ("a", "b")])
        [0, 0, 0]
    """
    first, owner = list(range(len(marks))), dict[str, int]()
    for index, own in enumerate(marks):
        joined = {index, *(first[owner[mark]] for mark in own if mark in owner)}
        if len(joined) > 1:
            first = [min(joined) if known in joined else known for known in first]
        owner |= {mark: index for mark in own if mark not in owner}
    return first


def row_digest(example: Example) -> bytes:
    """Returns a sha256 of an example: its tokens, supervised ones and images."""
    row = hashlib.sha256(len(example.tokens).to_bytes(8, "little"))
    for part in (example.tokens.tobytes(), example.supervised.tobytes(), *map(_image_digest, example.images)):
        row.update(part)
    return row.digest()


def _image_digest(image: Image) -> bytes:
    if "path" in image:
        return bytes.fromhex(_file_digest(image["path"]))
    return hashlib.sha256(image["bytes"]).digest()


@lru_cache(maxsize=1 << 16)
def _file_digest(path: str) -> str:
    return file_checksum(epath.Path(path))
