"""Options of merge operators and their ranges."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from merit_jax.core.ranges import SWITCH, Range, number, one_of, whole

RANGES: Mapping[str, Range] = {
    "scale": number(),
    "density": number(above=0, most=1),
    "drop_rate": number(least=0, below=1),
    "eta": number(above=0, most=1),
    "common_fraction": number(least=0, most=1),
    "floor": number(least=0),
    "alpha": number(least=0, most=1),
    "damping": number(least=0),
    "start": one_of(("sum", "mean")),
    "seed": whole(),
    "trim_scope": one_of(("global", "tensor")),
    "weighted_election": SWITCH,
    "weighted_mean": SWITCH,
}
"""Name of an option -> its range; an option means the same thing in every operator that takes it."""


def resolve_options(operator: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Completes the options of an operator with the defaults of those not given.

    Args:
        operator: Its keyword-only arguments are the options.
        given: The options that were given.

    Raises:
        ValueError: One is unknown, missing or out of its range.

    Examples:
        >>> def blend(parameter, weights, *, scale, density=0.2): ...
        >>> resolve_options(blend, {"scale": 0.5})
        {'density': 0.2, 'scale': 0.5}
    """
    known = declared_options(operator)
    unknown, missing = sorted(set(given) - set(known)), sorted(_required(known) - set(given))
    if unknown or missing:
        raise ValueError(
            f"merge options: unknown {unknown}, missing {missing}; {_name(operator)} takes {sorted(known)}"
        )
    for name, value in given.items():
        if not RANGES[name].holds(value):
            raise ValueError(f"merge option {name} of {_name(operator)}: got {value!r}; expected {RANGES[name].words}")
    return {**{name: value for name, value in known.items() if value is not inspect.Parameter.empty}, **given}


def declared_options(operator: Callable[..., Any]) -> dict[str, Any]:
    """Returns each option's name -> its default, or `inspect.Parameter.empty` where it must be given."""
    parameters = inspect.signature(operator).parameters.values()
    return {option.name: option.default for option in parameters if option.kind is option.KEYWORD_ONLY}


def _required(known: Mapping[str, Any]) -> set[str]:
    return {name for name, default in known.items() if default is inspect.Parameter.empty}


def _name(operator: Callable[..., Any]) -> str:
    return getattr(operator, "__name__", str(operator))
