"""Reads the rows of dataset files: JSON Lines, JSON (a list of objects) and parquet."""

import hashlib
from collections.abc import Sequence
from typing import Any

from etils import epath

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.data.json_rows import read_json, read_json_lines
from merit_jax.data.parquet import open_parquet
from merit_jax.data.rows import FileError, OnError, Row, Rows, fail
from merit_jax.workdir.checksums import file_checksum
from merit_jax.workdir.paths import is_there

PARQUET_ROWS = 1024
"""Rows of a parquet file that are in memory at a time; they may embed images."""


def read_rows(path: str, on_error: OnError = fail) -> Rows:
    """Reads the rows of one file, whose format follows from its suffix.

    Args:
        path: A `.jsonl`, `.ndjson`, `.json` or `.parquet` file. A `.json` file that does not open with "[" is read as
            JSON Lines, as Hugging Face datasets does.
        on_error: Called with the error of every bad row.

    Yields:
        ("FILE:LINE" or "FILE[INDEX]", row). Blank lines are no rows.

    Raises:
        ValueError: The file is missing, empty or of an unknown suffix; or `on_error` raises.
    """
    suffix = epath.Path(path).suffix
    if suffix not in READERS and not _is_folder(path):
        raise ValueError(f"{path}: unknown file type {suffix!r}; convert it to one of {', '.join(READERS)}")
    _check_file(path)
    errors = rows = 0

    def counted(error: ValueError) -> None:
        nonlocal errors
        errors += 1
        on_error(error)

    for row in READERS[suffix](path, counted):
        rows += 1
        yield row
    if not (rows or errors):
        on_error(FileError(path, "no rows; give a file with at least one record, or leave the dataset out"))


def files_digest(files: Sequence[str]) -> str:
    """Returns the sha256 of a data file's bytes, in hex; of several files, that of their digests in order."""
    for file in files:
        _check_file(file)
    digests = [file_checksum(epath.Path(file)) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_parquet(path: str, on_error: OnError) -> Rows:
    """Reads the rows of a parquet file, one record batch in memory at a time.

    The objects of a nested column have all keys that one of them has; those that are null are left out.
    """
    try:
        import pyarrow.parquet  # noqa: F401 (opened below)
    except ImportError as error:
        raise ValueError(f"{path}: parquet needs pyarrow; pip install 'merit-jax[parquet]'") from error
    index = 0
    try:
        with epath.Path(path).open("rb") as file:
            size = epath.Path(path).stat().length
            for batch in open_parquet(file, size).iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield f"{path}[{index}]", {key: _without_nulls(value) for key, value in row.items()}
                    index += 1
    except Exception as error:  # of Arrow, or of a value that Python cannot hold
        raise_if_of_machine(error, path)
        on_error(ValueError(f"{path}: not readable as parquet after {index} rows ({error}); the file may be cut off"))


READERS = {".jsonl": read_json_lines, ".ndjson": read_json_lines, ".json": read_json, ".parquet": read_parquet}


def text_field(row: Row, key: str, where: str) -> str:
    """Returns a field of a row that must be there and hold text."""
    value = field(row, key, where)
    if not isinstance(value, str):
        raise ValueError(f"{where}: field {key!r} must be a string, got {type(value).__name__}: {value!r:.80}")
    return value


def field(row: Row, key: str, where: str) -> Any:
    """Returns a field of a row that must be there."""
    if key not in row:
        raise ValueError(
            f"{where}: missing field {key!r} (found: {sorted(row)}); add it or map its name in the manifest"
        )
    return row[key]


def _check_file(path: str) -> None:
    try:
        found = is_there(epath.Path(path)) and epath.Path(path).is_file()
    except (OSError, ValueError) as error:  # a name that no file can have
        raise_if_of_machine(error, path)
        found = False
    if not found and _is_folder(path):
        raise ValueError(
            f"{path}: a folder, not a file; name a file in it, or name the folder in a manifest's file_name"
        )
    if not found:
        raise ValueError(f"{path:.1000}: no such file; correct the path")


def _is_folder(path: str) -> bool:
    try:
        return epath.Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
