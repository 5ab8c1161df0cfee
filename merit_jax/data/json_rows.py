"""Reads the rows of JSON Lines, and of JSON lists; tells other containers of records, and how to convert them."""

import itertools
import json
from typing import Any

from etils import epath

from merit_jax.data.containers import container_hint
from merit_jax.data.json_values import parse_items, parse_json
from merit_jax.data.rows import FileError, OnError, Row, RowError, Rows

LOOK = 2**26
"""Bytes of a file that are looked at to tell what it is where its first line is no record."""


def read_json_lines(path: str, on_error: OnError) -> Rows:
    """Reads one JSON object per line."""
    with epath.Path(path).open("rb") as file:
        lines = enumerate(file, start=1)
        first = next(((number, line) for number, line in lines if line.strip()), None)
        if first is None:
            return
        if reason := _encoding(first[1]) or _container(path, first[1]):
            on_error(FileError(path, reason))
            return
        for number, line in itertools.chain([first], lines):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                text = _decode(line)
                yield where, _object(parse_json(text, where))
            except json.JSONDecodeError as error:
                on_error(RowError(where, _line_reason(error)))
            except ValueError as error:
                on_error(RowError.of(error, where))


def read_json(path: str, on_error: OnError) -> Rows:
    """Reads a JSON list of objects; a file that does not open with "[" is read as JSON Lines."""
    data = epath.Path(path).read_bytes()
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"[":
        yield from read_json_lines(path, on_error)
        return
    if reason := _encoding(data[:8]):
        on_error(FileError(path, reason))
        return
    try:
        for where, item in parse_items(_decode(data), path):
            try:
                if isinstance(item, ValueError):
                    raise item
                yield where, _object(item)
            except ValueError as error:
                on_error(RowError.of(error, where))
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at column {error.colno}"
        on_error(FileError(f"{path}:{error.lineno}", f"not JSON ({problem}); the file may be cut off"))
    except ValueError as error:
        on_error(FileError.of(error, path))


def _encoding(line: bytes) -> str:
    """Returns what is wrong with the encoding of a file that begins with a line; empty where it may be UTF-8."""
    name = json.detect_encoding(line.lstrip(b"\r\n")[:4]).partition("-sig")[0]
    return "" if name == "utf-8" else f"the text is {name.upper()}; re-encode the file as UTF-8"


def _container(path: str, line: bytes) -> str:
    """Returns why a file is no lines of records, by its first line; empty where it may be."""
    text = line.decode("utf-8-sig", errors="replace").strip()
    if text[:1] not in ("[", "{") or _parsed(text) is not None:
        return ""
    with epath.Path(path).open("rb") as file:
        start = file.read(LOOK).decode("utf-8-sig", errors="replace").lstrip()
    value = _parsed(start)
    if text[:1] == "[" and (value is not None or text == "["):
        return "a JSON list over several lines; rename the file to .json, or write each record on one line"
    if value is None or "\n" not in start[: value[1]].strip():
        return ""
    mend = container_hint(value[0]) or "write each record on one line, or the records as a list to a .json file"
    return f"a JSON object over several lines, not one in each; {mend}"


def _parsed(text: str) -> tuple[Any, int] | None:
    """Returns the JSON value that a text begins with, and where it ends; None without one."""
    try:
        return json.JSONDecoder(parse_int=str).raw_decode(text)
    except (ValueError, RecursionError):
        return None


def _line_reason(error: json.JSONDecodeError) -> str:
    rest = error.doc[error.pos :].strip()
    if error.msg == "Extra data" and rest == ",":
        return "a comma follows the object; delete it, or write the records as a list to a .json file"
    if error.msg == "Extra data" and rest.startswith("{"):
        ends = " (its lines end in a carriage return alone)" if "\r" in error.doc.rstrip() else ""
        return f"several objects in one line{ends}; write each on a line of its own"
    return f"not a JSON object ({error.msg} at column {error.colno}); mend or delete the line"


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid UTF-8 at byte {error.start} ({error.reason}); re-encode as UTF-8") from error


def _object(row: Any) -> Row:
    if not isinstance(row, dict):
        mend = container_hint(row) or "write one record as {...}"
        raise ValueError(f"expected a JSON object, got {type(row).__name__}; {mend}")
    return row
