"""Checksums of values, files and vectors."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath

from merit_jax.workdir.paths import is_remote

CHUNK = 1 << 22
"""Bytes of a file that are hashed at a time."""


Stamp = tuple[int, ...]
"""What the file system says of a file and changes whenever it is written: size, times, and the number of its inode."""


def stamp(path: epath.PathLike) -> Stamp:
    """Returns the stamp of a file. The time of the last change of the inode, which nobody can set, is part of it.

    Raises:
        OSError: There is no such file.
    """
    if is_remote(path):
        found = epath.Path(path).stat()
        return (found.length, int(found.mtime))
    local = os.stat(path)
    return (local.st_size, local.st_mtime_ns, local.st_ctime_ns, local.st_ino, local.st_dev)


def fingerprint(value: Any) -> str:
    """Returns the sha256, in hex, of a JSON value; the order of keys makes no difference.

    Examples:
        >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_checksums(directory: epath.Path) -> dict[str, str]:
    """Returns the sha256, in hex, of every file below a directory, by its path from there; each is read once."""
    files = dict(sorted(_files(directory, "")))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(files, pool.map(file_checksum, files.values()), strict=True))


def sha256_array(vector: Any) -> str:
    """Returns the sha256, in hex, of the bytes of a vector, or of anything with a length and slices."""
    digest = hashlib.sha256()
    for start in range(0, len(vector), CHUNK):
        digest.update(np.ascontiguousarray(vector[start : start + CHUNK]).data)
    return digest.hexdigest()


def verify_checksums(directory: epath.Path, recorded: Mapping[str, str], mend: str = "") -> None:
    """Compares the files below a directory with the checksums recorded when they were written.

    Args:
        directory: The directory.
        recorded: Checksums by path from there.
        mend: What to do about damage; "": delete the item and make it again.

    Raises:
        ValueError: One is missing, new, or has other bytes.
    """
    found = file_checksums(directory)
    for name in sorted(recorded.keys() | found.keys()):
        if found.get(name) != recorded.get(name):
            reason = "is missing" if name not in found else "was not there" if name not in recorded else "has changed"
            item, _, rest = name.partition("/")
            place, file = (directory / item, rest) if rest else (directory, item)
            mend = mend or "delete it and make it again"
            raise ValueError(f"{place} is damaged (since it was written, {file} {reason}); {mend}")


def _files(directory: epath.Path, prefix: str) -> Iterator[tuple[str, epath.Path]]:
    for path in directory.iterdir():
        if path.is_dir():
            yield from _files(path, f"{prefix}{path.name}/")
        else:
            yield prefix + path.name, path


def file_checksum(path: epath.Path) -> str:
    """Returns the sha256, in hex, of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
