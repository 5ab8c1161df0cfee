"""Ranges: the values that a setting takes, in words for its user and as a test."""

import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from merit_jax.core.text import has_control

Bound = float | int | None
"""A bound of numbers; None for none."""


class Range(NamedTuple):
    """The values that a setting takes.

    Attributes:
        words: Their description, which follows "expected" in error messages.
        holds: Whether a value, of any type, is one of them.
    """

    words: str
    holds: Callable[[Any], bool]


def whole(least: int | None = None, most: int | None = None) -> Range:
    """Returns the range of whole numbers within bounds, which are part of it.

    Examples:
        >>> whole(1).words, whole(1).holds(1), whole(1).holds(0), whole(1).holds(True)
        ('a whole number of at least 1', True, False, False)
    """

    def holds(value: Any) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (least is None or value >= least)
            and (most is None or value <= most)
        )

    return Range(f"a whole number{_bounds(least=least, most=most)}", holds)


def number(*, least: Bound = None, above: Bound = None, most: Bound = None, below: Bound = None) -> Range:
    """Returns the range of finite numbers within bounds: `least` and `most` are part of it, `above` and `below` are not.

    Examples:
        >>> number(above=0).words, number(above=0).holds(math.inf), number(least=0, below=1).words
        ('a number above 0', False, 'a number of at least 0 and below 1')
    """

    def holds(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )

    bounds = _bounds(least=least, above=above, most=most, below=below)
    return Range(f"a number{bounds}" if bounds else "a finite number", holds)


def either(value: Any, other: Range) -> Range:
    """Returns a range with one value more, as -1 for "the rest"."""
    return Range(f"{value!r} or {other.words}", lambda given: _same(given, value) or other.holds(given))


def one_of(names: Iterable[str]) -> Range:
    """Returns the range of some names."""
    known = tuple(names)
    words = ", ".join(name or repr(name) for name in known)
    return Range(f"one of {words}", lambda value: isinstance(value, str) and value in known)


def each(values: Range, least: int = 0, *, rising: bool = False) -> Range:
    """Returns the range of tuples or lists of at least `least` values, all of one range.

    Examples:
        >>> each(whole(1), least=1, rising=True).words
        'a tuple, not empty and rising, with each value a whole number of at least 1'
    """
    conditions = [*(["not empty"] if least == 1 else [f"of at least {least}"] if least else []), *["rising"] * rising]

    def holds(value: Any) -> bool:
        return (
            isinstance(value, tuple | list)
            and len(value) >= least
            and all(map(values.holds, value))
            and (not rising or all(a < b for a, b in itertools.pairwise(value)))
        )

    said = f", {' and '.join(conditions)}," if conditions else ""
    return Range(f"a tuple{said} with each value {values.words}", holds)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not has_control(value)


def _is_pattern(value: Any) -> bool:
    try:
        return _is_text(value) and bool(value) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


TEXT = Range("text without control characters", _is_text)
SOME_TEXT = Range("text, not empty and without control characters", lambda value: _is_text(value) and bool(value))
PATTERN = Range("a regular expression, not empty and without control characters", _is_pattern)
SWITCH = Range("true or false", lambda value: isinstance(value, bool))


def _bounds(**given: Bound) -> str:
    """Bounds in words, with a space in front; "" without any."""
    words = {"least": "of at least", "above": "above", "most": "at most", "below": "below"}
    said = " and ".join(f"{words[name]} {bound}" for name, bound in given.items() if bound is not None)
    return f" {said}" if said else ""


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and value == other
