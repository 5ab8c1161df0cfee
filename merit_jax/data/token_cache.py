"""Keeps examples as flat arrays and references to images, in memory or memory-mapped from a token cache."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Bool, Int32, Int64

from merit_jax.core.types import Example, Image
from merit_jax.workdir.artifacts import read_array, write_array, write_text
from merit_jax.workdir.checksums import sha256_array

ARRAYS = ("tokens", "supervised", "counts", "offsets")
IMAGES = "images.json"
SUMS = "checksums.json"
"""sha256 of each array and of the images."""

Reference = str | bytes
"""An image's path, or the image itself."""


class TokenTable(Sequence[Example]):
    """A compact `Sequence[Example]`: the arrays of all examples, end to end.

    Attributes:
        tokens: Ids of all examples.
        supervised: Loss mask of all examples.
        counts: Numbers of examples that were truncated, have a response without an end, and have texts left out.
        offsets: Example i is `tokens[offsets[i] : offsets[i + 1]]`.
        images: The images of each example; empty if no example has any.
    """

    def __init__(
        self,
        tokens: Int32[np.ndarray, " n"],
        supervised: Bool[np.ndarray, " n"],
        counts: Int64[np.ndarray, "3"],
        offsets: Int64[np.ndarray, " rows_and_1"],
        images: Sequence[Sequence[Reference]] = (),
    ):
        self.tokens, self.supervised, self.counts, self.offsets = tokens, supervised, counts, offsets
        self.images = images

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # no slices
        index = range(len(self))[index]
        part = slice(self.offsets[index], self.offsets[index + 1])
        images = tuple(_part(image) for image in self.images[index]) if self.images else ()
        return Example(self.tokens[part], self.supervised[part], images)

    @property
    def truncated(self) -> int:
        """Examples that were truncated at the maximum length."""
        return int(self.counts[0])

    @property
    def unended(self) -> int:
        """Examples with a response that ends in no special token."""
        return int(self.counts[1])

    @property
    def unseen(self) -> int:
        """Examples with a text that the chat template leaves out."""
        return int(self.counts[2])

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


def as_table(examples: Iterable[Example], truncated: int = 0, unended: int = 0, unseen: int = 0) -> TokenTable:
    """Puts examples end to end, with numbers of them as `TokenTable` has them; a table is returned as it is.

    Raises:
        ValueError: An example has no token.

    Examples:
        >>> one = Example(np.array([5, 6], np.int32), np.array([False, True]))
        >>> two = Example(np.array([7, 8, 9], np.int32), np.array([False, True, True]))
        >>> table = as_table([one, two])
        >>> table.tokens.tolist(), table.offsets.tolist()
        ([5, 6, 7, 8, 9], [0, 2, 5])
        >>> table.lengths.tolist(), table.supervised_counts.tolist()
        ([2, 3], [1, 2])
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
        np.asarray([truncated, unended, unseen], np.int64),
        np.cumsum([0, *lengths], dtype=np.int64),
        [tuple(map(_reference, example.images)) for example in examples] if any(e.images for e in examples) else (),
    )


def save_table(table: TokenTable, folder: epath.Path) -> None:
    """Writes the table, whose images are paths, file by file; the folder counts as saved once the last array is there."""
    sums = _sums(table)
    for name in ARRAYS:
        if name == ARRAYS[-1]:
            write_text(folder / IMAGES, json.dumps([list(images) for images in table.images]))
            write_text(folder / SUMS, json.dumps(sums))
        write_array(folder / f"{name}.npy", np.asarray(getattr(table, name)))


def is_saved(folder: epath.Path) -> bool:
    """Returns whether `save_table` has finished in this folder."""
    return (folder / f"{ARRAYS[-1]}.npy").exists()


def load_table(folder: epath.Path) -> TokenTable:
    """Memory-maps the arrays that `save_table` wrote, and reads them once for their checksums; from a bucket, reads them.

    Raises:
        ValueError: A file is damaged.
    """
    tokens, supervised, counts, offsets = (_load_array(folder, name) for name in ARRAYS)
    table = TokenTable(tokens, supervised, counts, offsets, _load_images(folder, rows=offsets.size - 1))
    _check(table, folder)
    return table


def _load_array(folder: epath.Path, name: str) -> np.ndarray:
    path = folder / f"{name}.npy"
    try:
        return read_array(path)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: damaged token cache ({error}); delete {folder}") from error


def _sums(table: TokenTable) -> dict[str, str]:
    """sha256 of each array and of the images."""
    images = json.dumps([list(images) for images in table.images]).encode()
    arrays = {name: sha256_array(np.atleast_1d(getattr(table, name))) for name in ARRAYS}
    return {**arrays, "images": hashlib.sha256(images).hexdigest()}


def _check(table: TokenTable, folder: epath.Path) -> None:
    try:
        recorded = json.loads((folder / SUMS).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder / SUMS}: damaged token cache ({error}); delete {folder}") from error
    found = _sums(table)
    if recorded != found:
        changed = [name for name in found if not isinstance(recorded, dict) or recorded.get(name) != found[name]]
        raise ValueError(f"{folder}: damaged token cache ({changed} not as written); delete {folder}")


def _load_images(folder: epath.Path, rows: int) -> list[tuple[str, ...]]:
    try:
        images = [tuple(row) for row in json.loads((folder / IMAGES).read_text())]
        if len(images) not in (0, rows):
            raise ValueError(f"{len(images)} rows, the arrays have {rows}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / IMAGES}: damaged token cache ({error}); delete {folder}") from error
    return images


def _reference(image: Image) -> Reference:
    return image["path"] if "path" in image else image["bytes"]


def _part(reference: Reference) -> Image:
    return {"type": "image", "path" if isinstance(reference, str) else "bytes": reference}
