"""The gradients of a run on disk: the only reader and writer of rows, norms and their checksums."""

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.workdir.array_files import read_header
from merit_jax.workdir.artifacts import INPUTS, is_current, plain, read_json, write_array, write_json
from merit_jax.workdir.checksums import fingerprint, sha256_array

BLOCK = 2**20
"""Entries of a row that are squared at a time."""

FEWEST = 256
"""Rows that are added, at least, before the index is written again."""

READERS = 16
"""Files that are read at a time: each costs a round trip where the store is in a bucket."""


class StoredRow:
    """A vector in an `.npy` file of float32, read a slice at a time; nothing of it stays in memory.

    Attributes:
        path: The file.
    """

    def __init__(self, path: epath.Path) -> None:
        """Reads the file's header.

        Raises:
            OSError: The file is missing.
            ValueError: It is not an array of one axis in float32, or it is truncated.
        """
        self.path = path
        with path.open("rb") as file:
            shape, _, dtype = read_header(file)
            self._offset = file.tell()
        if len(shape) != 1 or dtype != np.float32:
            raise ValueError(f"expected a vector of float32, got {dtype} of shape {shape}")
        self._entries = shape[0]
        held, expected = path.stat().length, self._offset + 4 * self._entries
        if held != expected:
            raise ValueError(f"expected {expected} bytes, got {held}")

    def __len__(self) -> int:
        """Returns the number of entries."""
        return self._entries

    def __getitem__(self, index: slice) -> Float[np.ndarray, " n"]:
        """Reads the entries of a slice of step 1."""
        start, stop, _ = index.indices(self._entries)
        out = np.empty(stop - start, np.float32)
        self.read_into(start, out)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Reads the whole row."""
        return self[:].astype(dtype or np.float32, copy=False)

    def read_into(self, start: int, out: Float[np.ndarray, " n"]) -> None:
        """Fills `out` with the entries from `start` on, without a copy in between.

        Raises:
            ValueError: The file ends before.
        """
        with self.path.open("rb") as file:
            file.seek(self._offset + 4 * start)
            if file.readinto(out.data.cast("B")) != out.nbytes:
                raise ValueError(f"{self.path} ended while it was read; delete {self.path.parent}")


class NewRow(NamedTuple):
    """A gradient to be stored.

    Attributes:
        name: The dataset.
        digest: sha256 of the dataset's files.
        row: The compressed gradient.
        at_once: How many datasets were differentiated together, and why.
        left: Gradients that are to follow.
    """

    name: str
    digest: str
    row: Float[np.ndarray, " d"]
    at_once: Mapping[str, Any]
    left: int = 0


def _norm(row: Float[np.ndarray, " d"]) -> float:
    """Returns ‖g‖, summed in float64 a block at a time."""
    blocks = (row[start : start + BLOCK].astype(np.float64) for start in range(0, len(row), BLOCK))
    return math.sqrt(math.fsum(float(np.dot(block, block)) for block in blocks))


class GradientStore:
    """One compressed gradient, or vector like it, per dataset in a directory, and an index with their norms and checksums.

    A row that is added gets a file of its own with its entry, next to it. The index takes all entries in with the last row, and
    whenever as many have come as it has: so what is written grows with the number of rows, and a killed run loses none.

    Attributes:
        directory: The directory.
        path: The index, which records what all rows were made from.
        row_name: Name of a row in messages.
        stage: The stage that writes it, likewise.
    """

    def __init__(self, directory: epath.Path, row_name: str = "gradient", stage: str = "gradients") -> None:
        self.directory, self.path = directory, directory / "index.json"
        self.row_name, self.stage = row_name, stage
        self._open_for: Mapping[str, Any] | None = None
        self._room = 0

    def begin(self, inputs: Mapping[str, Any], *, overwrite: bool) -> None:
        """Does nothing: rows are added one at a time."""

    def read(self) -> Mapping[str, Any]:
        """Returns the index: `inputs`, `at_once`, and under `datasets` an entry for each row.

        Raises:
            ValueError: It is missing or damaged.
        """
        index = read_json(self.path)
        known, found = index.get("datasets", {}), self._late_entries(index.get(INPUTS))
        late = {entry["name"]: entry["entry"] for entry in found.values()}
        at_once = [entry["at_once"] for entry in found.values()][-1:] or [index.get("at_once")]
        return {**index, "datasets": {**known, **late}, "at_once": at_once[0]}

    def write(self, inputs: Mapping[str, Any], content: NewRow) -> None:
        """Adds or replaces one row, then its entry; rows made from other inputs leave the index."""
        name, digest, row, at_once, left = content
        self._begin(plain(inputs), at_once)
        stem = fingerprint(name)[:16]
        file = f"{stem}.npy"
        entry = {
            "file": file,
            "digest": digest,
            "norm": _norm(row),
            "entries": len(row),
            "sha256": sha256_array(row),
        }
        write_array(self.directory / file, row)
        late = {INPUTS: {"index": fingerprint(plain(inputs))}, "name": name, "entry": entry, "at_once": at_once}
        write_json(self.directory / f"{stem}.json", late)
        self._room -= 1
        if not left or self._room <= 0:
            self._take_in()

    def norms(self, names: Sequence[str]) -> Float[np.ndarray, " t"]:
        """Returns ‖g_t‖ of the named datasets, over the entries that are kept, in float64.

        Raises:
            ValueError: A gradient is missing.
        """
        return np.array([entry["norm"] for entry in self._entries(names)], np.float64)

    def rows(self, names: Sequence[str]) -> list[StoredRow]:
        """Opens the gradients of the named datasets, in order, after comparing each with its checksum.

        Raises:
            ValueError: A row is missing or damaged.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self._open, names, self._entries(names)))

    def damaged(self, row: StoredRow, name: str) -> ValueError:
        """Returns the error of a row that has other values than were written."""
        return ValueError(
            f"{row.path} (dataset {name!r}) does not hold the {self.row_name} that was written; delete {self.directory}"
        )

    def _begin(self, inputs: Mapping[str, Any], at_once: Mapping[str, Any]) -> None:
        """Makes an index without rows, unless there is one from the same inputs."""
        if self._open_for == inputs:
            return
        if not is_current(self.path, inputs, overwrite=True):
            write_json(self.path, {INPUTS: inputs, "datasets": {}, "at_once": at_once})
        self._open_for, self._room = inputs, max(FEWEST, len(read_json(self.path)["datasets"]))

    def _take_in(self) -> None:
        """Writes the index with the entries that stand by themselves, whose files are then removed."""
        index = self.read()
        late = self._late_files()
        write_json(self.path, index)
        for path in late:
            path.unlink(missing_ok=True)
        self._room = max(FEWEST, len(index["datasets"]))

    def _late_files(self) -> list[epath.Path]:
        return sorted(path for path in self.directory.glob("*.json") if path != self.path)

    def _late_entries(self, inputs: Any) -> dict[epath.Path, Mapping[str, Any]]:
        """Returns the entries of rows that the index lacks, or has as they were before."""
        with ThreadPoolExecutor(READERS) as pool:
            files = self._late_files()
            found = dict(zip(files, pool.map(read_json, files), strict=True))
        made_from = {"index": fingerprint(inputs)}
        return {path: entry for path, entry in found.items() if entry[INPUTS] == made_from}

    def _entries(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        known = self.read()["datasets"]
        if missing := [name for name in names if name not in known]:
            listed = ", ".join(map(repr, missing))
            raise ValueError(
                f"no {self.row_name} of dataset {listed} in {self.directory}; run --stages={self.stage} first"
            )
        return [known[name] for name in names]

    def _open(self, name: str, entry: Mapping[str, Any]) -> StoredRow:
        path = self.directory / entry["file"]
        try:
            row = StoredRow(path)
        except (OSError, EOFError, ValueError) as error:
            raise_if_of_machine(error, path)
            raise ValueError(
                f"{path} (dataset {name!r}) is missing or damaged: {error}; delete {self.directory}"
            ) from None
        if len(row) != entry["entries"] or entry.get("sha256", "") not in ("", sha256_array(row)):
            raise self.damaged(row, name)
        return row
