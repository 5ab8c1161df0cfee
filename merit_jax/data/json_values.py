"""Parses JSON as its standard has it: no name twice in an object, no NaN, text that can be encoded, limited nesting."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

MAX_DEPTH = 100
"""Lists and objects nested in each other."""
TOO_DEEP = f"nested more than {MAX_DEPTH} deep; is it a record?"
_SPACE = re.compile(r"[ \t\r\n]*")


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
        value = json.loads(text, cls=_Strict)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"{where}: {TOO_DEEP}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    _check_parsed(value, text, where)
    return value


def parse_items(text: str, path: str) -> Iterator[tuple[str, Any]]:
    """Reads the items of a JSON list, each for itself.

    Args:
        text: The list.
        path: The file, for error messages.

    Yields:
        ("FILE[INDEX]", item); a bad item as its ValueError.

    Raises:
        json.JSONDecodeError: From here on it is no list.
        ValueError: An item is nested too deeply to find its end.
    """
    position, index = _skip(text, text.index("[") + 1), 0
    while index or text[position : position + 1] != "]":
        where = f"{path}[{index}]"
        value, end = _item(text, position, where)
        yield where, value
        position, index = _skip(text, end), index + 1
        if text[position : position + 1] == "]":
            break
        if text[position : position + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
        position = _skip(text, position + 1)
    if (end := _skip(text, position + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _item(text: str, start: int, where: str) -> tuple[Any, int]:
    """Returns an item, or the ValueError that refuses it, and where it ends."""
    try:
        value, end = _STRICT.raw_decode(text, start)
        _check_parsed(value, text[start:end], where)
        return value, end
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"{where}: {TOO_DEEP}") from None
    except ValueError as error:
        return ValueError(f"{where}: {str(error).removeprefix(f'{where}: ')}"), _end(text, start, where)


def _end(text: str, start: int, where: str) -> int:
    try:
        return _LENIENT.raw_decode(text, start)[1]
    except RecursionError:
        raise ValueError(f"{where}: {TOO_DEEP}") from None


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _check_parsed(value: Any, text: str, where: str) -> None:
    if "\\ud" in text or "\\uD" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        check_value(value, where)


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


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"holds half of a surrogate pair at character {error.start}"
        raise ValueError(f"{where}: the text {text!r:.80} {problem}; write the whole character") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; write null or a number")


class _Strict(json.JSONDecoder):
    """Decoder that refuses repeated names, NaN and infinities."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=unique, parse_constant=_refuse)


_STRICT, _LENIENT = _Strict(), json.JSONDecoder(parse_int=str)
