"""A list of examples as three flat arrays, kept in memory or memory-mapped from a token cache."""

import io
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Bool, Int32, Int64

from merit_jax.types import Example
from merit_jax.workdir import write_array

ARRAYS = ("tokens", "supervised", "truncated", "offsets")


class TokenTable(Sequence):
    """Examples end to end: a light `Sequence[Example]`.

    Attributes:
        tokens: Ids of all examples.
        supervised: Loss mask of all examples.
        truncated: Examples cut at the maximum length.
        offsets: Example i is `tokens[offsets[i] : offsets[i + 1]]`.
    """

    def __init__(
        self,
        tokens: Int32[np.ndarray, " n"],
        supervised: Bool[np.ndarray, " n"],
        truncated: Int64[np.ndarray, ""],
        offsets: Int64[np.ndarray, " rows_and_1"],
    ):
        self.tokens, self.supervised, self.truncated, self.offsets = tokens, supervised, truncated, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        part = slice(self.offsets[index], self.offsets[index + 1])
        return Example(self.tokens[part], self.supervised[part])

    @property
    def lengths(self) -> Int64[np.ndarray, " rows"]:
        """Tokens of each example."""
        return np.diff(self.offsets)

    @property
    def supervised_counts(self) -> Int64[np.ndarray, " rows"]:
        """Supervised tokens of each example."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(self.supervised, self.offsets[:-1], dtype=np.int64)


def as_table(examples: Iterable[Example], truncated: int = 0) -> TokenTable:
    """Lays examples end to end, `truncated` of which were cut; a table is returned as it is.

    Raises:
        ValueError: An example has no token.
    """
    if isinstance(examples, TokenTable):
        return examples
    examples = list(examples)
    lengths = [len(example.tokens) for example in examples]
    if 0 in lengths:
        raise ValueError(f"example {lengths.index(0)} has no token; leave it out")
    return TokenTable(
        np.concatenate([np.zeros(0, np.int32), *(example.tokens for example in examples)]),
        np.concatenate([np.zeros(0, bool), *(example.supervised for example in examples)]),
        np.asarray(truncated, np.int64),
        np.cumsum([0, *lengths], dtype=np.int64),
    )


def save_table(table: TokenTable, folder: epath.Path) -> None:
    """Writes the arrays, each whole or not at all; the folder counts as saved once the last of them is there."""
    for name in ARRAYS:
        write_array(folder / f"{name}.npy", np.asarray(getattr(table, name)))


def is_saved(folder: epath.Path) -> bool:
    """Tells whether `save_table` has finished in this folder."""
    return (folder / f"{ARRAYS[-1]}.npy").exists()


def load_table(folder: epath.Path) -> TokenTable:
    """Memory-maps the arrays that `save_table` wrote; from a bucket, reads them.

    Raises:
        ValueError: An array is damaged.
    """
    arrays = []
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        try:
            if "://" in str(path):
                arrays.append(np.load(io.BytesIO(path.read_bytes()), allow_pickle=False))
            else:
                arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"{path}: damaged token cache ({error}); delete {folder}") from error
    return TokenTable(*arrays)
