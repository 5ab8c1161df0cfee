"""A list of examples as three flat arrays, kept in memory or memory-mapped from a token cache."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, Int64

from merit_jax.types import Example

ARRAYS = ("tokens", "supervised", "offsets", "truncated")


class TokenTable(Sequence):
    """Examples end to end: a light `Sequence[Example]`.

    Attributes:
        tokens: Ids of all examples.
        supervised: Loss mask of all examples.
        offsets: Example i is `tokens[offsets[i] : offsets[i + 1]]`.
        truncated: Examples cut at the maximum length.
    """

    def __init__(
        self,
        tokens: Int32[np.ndarray, " n"],
        supervised: Bool[np.ndarray, " n"],
        offsets: Int64[np.ndarray, " rows_and_1"],
        truncated: Int64[np.ndarray, ""],
    ):
        self.tokens, self.supervised, self.offsets, self.truncated = tokens, supervised, offsets, truncated

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
        return np.diff(np.concatenate([[0], np.cumsum(self.supervised, dtype=np.int64)])[self.offsets])


def as_table(examples: Iterable[Example], truncated: int = 0) -> TokenTable:
    """Lays examples end to end, `truncated` of which were cut; a table is returned as it is."""
    if isinstance(examples, TokenTable):
        return examples
    examples = list(examples)
    lengths = [len(example.tokens) for example in examples]
    return TokenTable(
        np.concatenate([np.zeros(0, np.int32), *(example.tokens for example in examples)]),
        np.concatenate([np.zeros(0, bool), *(example.supervised for example in examples)]),
        np.cumsum([0, *lengths], dtype=np.int64),
        np.asarray(truncated, np.int64),
    )


def save_table(table: TokenTable, folder: Path) -> None:
    """Writes the arrays to a new folder, which appears whole or not at all; a folder already there is kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name in ARRAYS:
            with (partial / f"{name}.npy").open("wb") as file:
                np.save(file, np.asarray(getattr(table, name)))
                file.flush()
                os.fsync(file.fileno())
        if not folder.exists():
            partial.rename(folder)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot write the token cache ({error}); free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_table(folder: Path) -> TokenTable:
    """Memory-maps the arrays that `save_table` wrote."""
    return TokenTable(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS))
