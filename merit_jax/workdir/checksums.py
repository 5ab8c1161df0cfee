"""Checksums of values, files and vectors."""

import hashlib
import json
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath

from merit_jax.workdir.paths import is_remote, is_there

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


def file_checksums(directory: epath.Path, names: Container[str] | None = None) -> dict[str, str]:
    """Returns the sha256, in hex, of every file below a directory, or of those named, by path from there; each is read once."""
    files = {name: path for name, path in sorted(_files(directory, "")) if names is None or name in names}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(files, pool.map(file_checksum, files.values()), strict=True))


def sha256_array(vector: Any) -> str:
    """Returns the sha256, in hex, of the bytes of a vector, or of anything with a length and slices."""
    digest = hashlib.sha256()
    for start in range(0, len(vector), CHUNK):
        digest.update(np.ascontiguousarray(vector[start : start + CHUNK]).data)
    return digest.hexdigest()


def verify_checksums(
    directory: epath.Path, recorded: Mapping[str, str], mend: str = "", *, added: bool = False
) -> None:
    """Compares the files below a directory with the checksums recorded when they were written.

    Args:
        directory: The directory.
        recorded: Checksums by path from there.
        mend: What to do about damage; "": delete the item and make it again.
        added: Whether files that were not there are let be.

    Raises:
        ValueError: One is missing, new, or has other bytes, or there is no such directory.
    """
    verify_files(directory, recorded, mend)
    found = file_checksums(directory, recorded if added else None)
    for name in sorted(recorded.keys() | found.keys()):
        if found.get(name) != recorded.get(name):
            raise _damage(directory, name, "has changed" if name in recorded else "was not there", mend)


def verify_files(directory: epath.Path, recorded: Iterable[str], mend: str = "") -> None:
    """Checks that the files which were written below a directory are there, without reading them.

    Args:
        directory: The directory.
        recorded: Their paths from there.
        mend: As for `verify_checksums`.

    Raises:
        ValueError: One is missing, or the directory.
    """
    if not is_there(directory):
        raise ValueError(f"{directory} is missing; {mend or 'make it again'}")
    for name in sorted(set(recorded) - dict(_files(directory, "")).keys()):
        raise _damage(directory, name, "is missing", mend)


def _damage(directory: epath.Path, name: str, reason: str, mend: str) -> ValueError:
    item, _, rest = name.partition("/")
    place, file = (directory / item, rest) if rest else (directory, item)
    mend = mend or "delete it and make it again"
    return ValueError(f"{place} is damaged (since it was written, {file} {reason}); {mend}")


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
