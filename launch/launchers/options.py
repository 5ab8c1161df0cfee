"""Reads the options of a launcher from the command line."""

from collections.abc import Sequence
from typing import Any


def parse(kind: Any, given: Sequence[str], launcher: str) -> Any:
    """Returns a launcher's options.

    Args:
        kind: A NamedTuple class whose fields are options, with defaults of type bool, int, float or str.
        given: Words "KEY=VALUE".
        launcher: Its name, for messages.

    Raises:
        ValueError: A key is unknown, or a value is not of its type.

    Examples:
        >>> from typing import NamedTuple
        >>> class Options(NamedTuple):
        ...     parallel: int = 1
        ...     gpus: str = ""
        >>> parse(Options, ["parallel=2"], "local")
        Options(parallel=2, gpus='')
    """
    values = {}
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or key not in kind._fields:
            raise ValueError(
                f"--option={word}: expected KEY=VALUE; launcher {launcher} takes {', '.join(kind._fields)}"
            )
        values[key] = _value(text, type(kind._field_defaults[key]), word)
    return kind(**values)


def _value(text: str, kind: type, word: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--option={word}: expected true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"--option={word}: expected {kind.__name__}") from None
