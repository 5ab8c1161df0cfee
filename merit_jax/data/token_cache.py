"""Keeps examples as flat arrays and references to images, in memory or memory-mapped from a token cache."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath
from jaxtyping import Bool, Int32, Int64

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.core.types import Example, Image
from merit_jax.workdir.array_files import read_array
from merit_jax.workdir.artifacts import write_array, write_text
from merit_jax.workdir.checksums import sha256_array
from merit_jax.workdir.leftovers import sweep_folder
from merit_jax.workdir.paths import absolute, is_remote, is_there

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
    sums, images = _sums(table, folder), _stored_images(table, folder)
    sweep_folder(folder)
    for name in ARRAYS:
        if name == ARRAYS[-1]:
            write_text(folder / IMAGES, json.dumps(images))
            write_text(folder / SUMS, json.dumps(sums))
        write_array(folder / f"{name}.npy", np.asarray(getattr(table, name)))


def is_saved(folder: epath.Path) -> bool:
    """Returns whether `save_table` has finished in this folder."""
    return is_there(folder / f"{ARRAYS[-1]}.npy")


def load_table(folder: epath.Path) -> TokenTable:
    """Opens the arrays that `save_table` wrote, and reads them once for their checksums; no descriptor stays open.

    Raises:
        OSError: The machine cannot read a file that may be sound.
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
        raise_if_of_machine(error, path)
        raise ValueError(f"{path}: damaged token cache ({error}); delete {folder}") from error


def _stored_images(table: TokenTable, folder: epath.Path) -> list[list[Reference]]:
    """The images as the cache keeps them: a path below the cache from there, so that the cache can be moved."""
    above = f"{absolute(folder.parent)}/"
    return [[i.removeprefix(above) if isinstance(i, str) else i for i in images] for images in table.images]


def _sums(table: TokenTable, folder: epath.Path) -> dict[str, str]:
    """sha256 of each array and of the images."""
    images = json.dumps(_stored_images(table, folder)).encode()
    arrays = {name: sha256_array(np.atleast_1d(getattr(table, name))) for name in ARRAYS}
    return {**arrays, "images": hashlib.sha256(images).hexdigest()}


def _check(table: TokenTable, folder: epath.Path) -> None:
    try:
        recorded = json.loads((folder / SUMS).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise_if_of_machine(error, folder / SUMS)
        raise ValueError(f"{folder / SUMS}: damaged token cache ({error}); delete {folder}") from error
    found = _sums(table, folder)
    if recorded != found:
        changed = [name for name in found if not isinstance(recorded, dict) or recorded.get(name) != found[name]]
        raise ValueError(f"{folder}: damaged token cache ({changed} not as written); delete {folder}")


def _load_images(folder: epath.Path, rows: int) -> list[tuple[str, ...]]:
    try:
        above = absolute(folder.parent)
        stored = json.loads((folder / IMAGES).read_text())
        images = [tuple(i if i.startswith("/") or is_remote(i) else str(above / i) for i in row) for row in stored]
        if len(images) not in (0, rows):
            raise ValueError(f"{len(images)} rows, the arrays have {rows}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise_if_of_machine(error, folder / IMAGES)
        raise ValueError(f"{folder / IMAGES}: damaged token cache ({error}); delete {folder}") from error
    return images


def _reference(image: Image) -> Reference:
    return image["path"] if "path" in image else image["bytes"]


def _part(reference: Reference) -> Image:
    return {"type": "image", "path" if isinstance(reference, str) else "bytes": reference}
