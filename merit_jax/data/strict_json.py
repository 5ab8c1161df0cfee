"""JSON as its standard has it: no name twice, no NaN, text that can be encoded, and an end to the nesting."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

MAX_DEPTH = 100
"""Lists and objects in each other."""


def parse(text: str, where: str) -> Any:
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
        raise ValueError(f"{where}: {_TOO_DEEP}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if "\\ud" in text or "\\uD" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        check_value(value, where)
    return value


def unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """An object's pairs as a dict.

    Raises:
        ValueError: A name is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = sorted(str(key) for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"duplicate names {repeated}; rename or delete all but one")
    return found


def check_value(value: Any, where: str) -> None:
    """Refuses what other parts of a program trip over; a list or dict that is there several times is looked at once.

    Raises:
        ValueError: The value is nested more than `MAX_DEPTH` deep, or a text holds half of a surrogate pair.
    """
    level, seen = [value], set()
    for _ in range(MAX_DEPTH + 1):
        below = []
        for part in level:
            if isinstance(part, str):
                _check_text(part, where)
            elif isinstance(part, dict | list) and id(part) not in seen:
                seen.add(id(part))
                below += [*part, *part.values()] if isinstance(part, dict) else part
        level = below
        if not level:
            return
    raise ValueError(f"{where}: {_TOO_DEEP}")


_TOO_DEEP = f"nested more than {MAX_DEPTH} deep; is it a record?"


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: the text {text!r:.80} holds half of a surrogate pair at character {error.start}; write the whole character"
        ) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; write null or a number")
