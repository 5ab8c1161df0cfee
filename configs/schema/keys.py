"""A configuration key as it is declared: its default and its range."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from merit_jax.core.ranges import Range


@dataclasses.dataclass(frozen=True)
class Key:
    """A configuration key.

    Attributes:
        default: Its value where no config sets it.
        range: The values that it takes.
    """

    default: Any
    range: Range


def defaults(keys: ConfigDict) -> ConfigDict:
    """Returns a locked config with the defaults of declared keys."""
    return ConfigDict(_values(keys)).lock()


def _values(keys: ConfigDict) -> dict[str, Any]:
    return {name: _values(part) if isinstance(part, ConfigDict) else part.default for name, part in keys.items()}


def ranges(keys: ConfigDict) -> dict[str, Range]:
    """Returns the name of each declared key, as "train.epochs" -> its range."""
    found: dict[str, Range] = {}
    for name, part in keys.items():
        if isinstance(part, ConfigDict):
            found |= {f"{name}.{inner}": key.range for inner, key in part.items()}
        else:
            found[name] = part.range
    return found


def value_of(config: ConfigDict, name: str) -> Any:
    """Returns the value of a key by its name, as "train.epochs", in a config or in declared keys."""
    for part in name.split("."):
        config = config[part]
    return config
