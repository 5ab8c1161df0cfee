"""Rows of a dataset file: JSON Lines, JSON (a list of objects) and parquet."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from etils import epath

from merit_jax.data import strict_json
from merit_jax.workdir.checksums import file_checksum

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]
OnError = Callable[[ValueError], object]
"""What to do with a bad record: `fail` raises; `list.append` collects, and reading goes on with the next one."""


PARQUET_ROWS = 1024
"""Rows of a parquet file that are in memory at a time; they may embed images."""


def fail(error: ValueError) -> NoReturn:
    """Stops at the first bad record."""
    raise error


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
    if suffix not in READERS:
        raise ValueError(f"{path}: unknown file type {suffix!r}; convert it to one of {', '.join(READERS)}")
    _check_file(path)
    empty = True
    for row in READERS[suffix](path, on_error):
        empty = False
        yield row
    if empty:
        on_error(ValueError(f"{path}: no rows; give a file with at least one record, or leave the dataset out"))


def file_digest(path: str) -> str:
    """Returns the sha256 of a data file's bytes, in hex."""
    _check_file(path)
    return file_checksum(epath.Path(path))


def read_json_lines(path: str, on_error: OnError) -> Rows:
    """Reads one JSON object per line."""
    with epath.Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                yield where, _object(strict_json.parse(_text(line, where), where), where)
            except json.JSONDecodeError as error:
                on_error(
                    ValueError(
                        f"{where}: not a JSON object ({error.msg} at column {error.colno}); mend or delete the line"
                    )
                )
            except ValueError as error:
                on_error(error)


def read_json(path: str, on_error: OnError) -> Rows:
    """Reads a JSON list of objects; a file that does not open with "[" is read as JSON Lines."""
    data = epath.Path(path).read_bytes()
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"[":
        yield from read_json_lines(path, on_error)
        return
    try:
        rows = strict_json.parse(_text(data, path), path)
    except json.JSONDecodeError as error:
        on_error(
            ValueError(
                f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno}); the file may be cut off"
            )
        )
        return
    except ValueError as error:
        on_error(error)
        return
    for index, row in enumerate(rows):
        try:
            yield f"{path}[{index}]", _object(row, f"{path}[{index}]")
        except ValueError as error:
            on_error(error)


def read_parquet(path: str, on_error: OnError) -> Rows:
    """Reads the rows of a parquet file, one record batch in memory at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"{path}: parquet needs pyarrow; pip install 'merit-jax[parquet]'") from error
    index = 0
    try:
        with epath.Path(path).open("rb") as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield f"{path}[{index}]", row
                    index += 1
    except Exception as error:  # of Arrow, of the disk, or of a value that Python cannot hold
        on_error(ValueError(f"{path}: not readable as parquet after {index} rows ({error}); the file may be cut off"))


READERS = {".jsonl": read_json_lines, ".ndjson": read_json_lines, ".json": read_json, ".parquet": read_parquet}


def _check_file(path: str) -> None:
    try:
        found = epath.Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found:
        raise ValueError(f"{path}: no such file; correct the path")


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: invalid UTF-8 at byte {error.start} ({error.reason}); re-encode as UTF-8"
        ) from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(row).__name__}; write one record as {{...}}")
    return row
