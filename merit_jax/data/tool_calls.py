"""Reads functions and calls of functions, in the spellings of public datasets, as chat templates of `transformers` take them.

A function is `{"type": "function", "function": {"name", "description", "parameters"}}`, a call
`{"type": "function", "function": {"name", "arguments"}}` with `arguments` an object.
"""

import json
from collections.abc import Mapping
from typing import Any

from merit_jax.core.types import Tools
from merit_jax.data.json_values import parse_json

CALL_KEYS = {"id", "type", "index", "function"}


def is_blank(value: Any) -> bool:
    """Returns whether a field says nothing: null, or empty, or an object of such fields.

    Examples:
        >>> is_blank(None), is_blank(""), is_blank({"a": []}), is_blank(0), is_blank(False)
        (True, True, True, False, False)
    """
    if isinstance(value, Mapping):
        return all(is_blank(part) for part in value.values())
    return value is None or (isinstance(value, str | bytes | list | tuple) and not value)


def read_tools(value: Any, where: str, key: str) -> Tools | None:
    """Reads the functions that a row announces.

    Args:
        value: A list of schemas, or its JSON text; a schema is an object or its JSON text, with or without the wrapper
            `{"type": "function", "function": ...}`.
        where: "FILE:LINE", for error messages.
        key: The name of the column.

    Returns:
        The schemas with their wrapper; None for none.

    Raises:
        ValueError: The value is anything else.
    """
    found = [_schema(schema, f"{where}: field {key!r}") for schema in _listed(value, f"{where}: field {key!r}")]
    return tuple(found) or None


def read_calls(value: Any, where: str, key: str) -> list[Mapping[str, Any]]:
    """Reads the calls of an assistant's message.

    Args:
        value: A list of calls, one call, or the JSON text of either; a call may lack the wrapper
            `{"type": "function", "function": ...}`, and its arguments may be JSON text.
        where: "FILE:LINE", for error messages.
        key: The name of the field.

    Returns:
        The calls with their wrapper and with arguments as an object; those of a function without arguments are empty.

    Raises:
        ValueError: The value is anything else, or is empty.
    """
    place = f"{where}: field {key!r}"
    calls = [_call(call, place) for call in _listed(value, place)]
    if not calls:
        raise ValueError(f"{place} holds no call; write {{'name': ..., 'arguments': {{...}}}}")
    return calls


def _schema(value: Any, place: str) -> Mapping[str, Any]:
    schema = _object(value, place)
    function = schema.get("function")
    if isinstance(function, Mapping) and isinstance(function.get("name"), str):
        return {"type": "function", **schema}
    if function is None and isinstance(schema.get("name"), str) and schema.get("type", "function") == "function":
        return {"type": "function", "function": {key: part for key, part in schema.items() if key != "type"}}
    raise ValueError(
        f"{place} holds {value!r:.80}, which describes no function; write {{'type': 'function', 'function': {{'name': ..., "
        "'parameters': ...}}, or rename the field if it is something else"
    )


def _call(value: Any, place: str) -> Mapping[str, Any]:
    call = _object(value, place)
    function = call.get("function")
    if not isinstance(function, Mapping) and not is_blank(function):
        raise ValueError(f"{place}: the 'function' of a call is {function!r:.80}; write its name and arguments")
    outer = {key: part for key, part in call.items() if key not in CALL_KEYS}
    inner, outer = (function, outer) if isinstance(function, Mapping) else (outer, {})
    unknown = {key for key, part in inner.items() if key not in ("name", "arguments") and not is_blank(part)}
    unknown |= {key for key, part in outer.items() if not is_blank(part)}
    if unknown or call.get("type") not in (None, "function"):
        raise ValueError(
            f"{place}: a call is {value!r:.80}; only the `name` and `arguments` of a function are read; remove or rename "
            f"{sorted(unknown, key=str) or ['type']}"
        )
    name, number = inner.get("name"), call.get("id")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{place}: a call names no function: {value!r:.80}; set its `name`")
    if not (number is None or isinstance(number, str)):
        raise ValueError(f"{place}: the id of a call is {number!r:.80}; write it as text")
    named = {"id": number} if number else {}
    return {**named, "type": "function", "function": {"name": name, "arguments": _arguments(inner, name, place)}}


def _arguments(function: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        return {}
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{place}: the arguments of {name!r:.80}")
    if not isinstance(arguments, Mapping):
        raise ValueError(
            f"{place}: the arguments of {name!r:.80} are {arguments!r:.80}; write an object of names and values"
        )
    return arguments


def _listed(value: Any, place: str) -> list[Any]:
    """The entries of a list, which may be JSON text, or a single entry."""
    if is_blank(value):
        return []
    if isinstance(value, str):
        value = _parsed(value, place)
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _object(value: Any, place: str) -> Mapping[str, Any]:
    found = _parsed(value, place) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ValueError(f"{place} holds {value!r:.80}; write a list of objects, or the JSON text of one")
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} holds a value that JSON does not have ({error}); write it as text") from None
    return found


def _parsed(text: str, place: str) -> Any:
    try:
        return parse_json(text, place)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: {text!r:.80} is no JSON ({error.msg} at column {error.colno}); mend it") from None
