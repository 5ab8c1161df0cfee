"""Values of a run's inputs that its config leaves open, so that an artifact made with another value serves as well."""

from collections.abc import Mapping
from typing import Any


class LeftOpen(str):
    """A value that the config leaves to the machine: a record that has another one in its place is accepted.

    `json` writes it as any other string.
    """


def settled(inputs: Any, recorded: Any) -> Any:
    """Returns inputs in which every value that is left open is the recorded one, where there is one.

    Args:
        inputs: What an artifact would be made from now, as JSON values.
        recorded: What it was made from.

    Examples:
        >>> settled({"seed": 0, "dtype": LeftOpen("float32")}, {"seed": 1, "dtype": "bfloat16"})
        {'seed': 0, 'dtype': 'bfloat16'}
    """
    if isinstance(inputs, LeftOpen):
        return recorded if isinstance(recorded, str) else str(inputs)
    if isinstance(inputs, Mapping):
        known = recorded if isinstance(recorded, Mapping) else {}
        return {key: settled(value, known.get(key)) for key, value in inputs.items()}
    return inputs
