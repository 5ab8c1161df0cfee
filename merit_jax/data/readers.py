"""Reads the rows of dataset files: JSON Lines, JSON (a list of objects) and parquet.

JSON is read as its standard has it: no name twice in an object, no NaN, text that can be encoded, limited nesting.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from etils import epath

from merit_jax.data.parquet import open_parquet
from merit_jax.workdir.checksums import file_checksum

Row = Mapping[str, Any]
Rows = Iterator[tuple[str, Row]]
OnError = Callable[[ValueError], object]
"""Takes the error of a bad record: `fail` raises it; `list.append` collects it, and reading goes on with the next record."""

PARQUET_ROWS = 1024
"""Rows of a parquet file that are in memory at a time; they may embed images."""
MAX_DEPTH = 100
"""Lists and objects nested in each other."""
TOO_DEEP = f"nested more than {MAX_DEPTH} deep; is it a record?"


def fail(error: ValueError) -> NoReturn:
    """Raises the error of a bad record."""
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
                yield where, _object(parse_json(_decode(line, where), where), where)
            except json.JSONDecodeError as error:
                problem = f"{error.msg} at column {error.colno}"
                on_error(ValueError(f"{where}: not a JSON object ({problem}); mend or delete the line"))
            except ValueError as error:
                on_error(error)


def read_json(path: str, on_error: OnError) -> Rows:
    """Reads a JSON list of objects; a file that does not open with "[" is read as JSON Lines."""
    data = epath.Path(path).read_bytes()
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"[":
        yield from read_json_lines(path, on_error)
        return
    try:
        rows = parse_json(_decode(data, path), path)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at column {error.colno}"
        on_error(ValueError(f"{path}:{error.lineno}: not JSON ({problem}); the file may be cut off"))
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
        import pyarrow.parquet  # noqa: F401 (opened below)
    except ImportError as error:
        raise ValueError(f"{path}: parquet needs pyarrow; pip install 'merit-jax[parquet]'") from error
    index = 0
    try:
        with epath.Path(path).open("rb") as file:
            size = epath.Path(path).stat().length
            for batch in open_parquet(file, size).iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    yield f"{path}[{index}]", row
                    index += 1
    except Exception as error:  # of Arrow, of the disk, or of a value that Python cannot hold
        on_error(ValueError(f"{path}: not readable as parquet after {index} rows ({error}); the file may be cut off"))


READERS = {".jsonl": read_json_lines, ".ndjson": read_json_lines, ".json": read_json, ".parquet": read_parquet}


def parse_json(text: str, where: str) -> Any:
    """Reads a JSON value.

    Args:
        text: The text.
        where: "FILE" or "FILE:LINE", for error messages.

    Raises:
        json.JSONDecodeError: It is not JSON.
        ValueError: An object has a name twice, a number is NaN, infinite or too long, or `check_value` refuses the value.
    """
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=_refuse)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"{where}: {TOO_DEEP}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if "\\ud" in text or "\\uD" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        check_value(value, where)
    return value


def unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """Returns an object's pairs as a dict.

    Raises:
        ValueError: A name is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = sorted(str(key) for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"duplicate names {repeated}; rename or delete all but one")
    return found


def check_value(value: Any, where: str) -> None:
    """Refuses values that other parts of a program fail on; a list or dict that occurs several times is checked once.

    Raises:
        ValueError: The value is nested more than `MAX_DEPTH` deep, or a text holds half of a surrogate pair.
    """
    level, seen = [value], set()
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for part in level:
            if isinstance(part, str):
                _check_text(part, where)
            elif isinstance(part, dict | list) and id(part) not in seen:
                seen.add(id(part))
                below += [*part, *part.values()] if isinstance(part, dict) else part
        level = below
        if not level:
            return
    raise ValueError(f"{where}: {TOO_DEEP}")


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
        found = epath.Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        found = False
    if not found:
        raise ValueError(f"{path}: no such file; correct the path")


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"invalid UTF-8 at byte {error.start} ({error.reason})"
        raise ValueError(f"{where}: {problem}; re-encode as UTF-8") from error


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(row).__name__}; write one record as {{...}}")
    return row


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"holds half of a surrogate pair at character {error.start}"
        raise ValueError(f"{where}: the text {text!r:.80} {problem}; write the whole character") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; write null or a number")
