"""Reads the paper's values for the tables of an experiment."""

import json
import re
from collections.abc import Mapping

from etils import epath

from merit_jax.configs.common import METHODS, parse
from merit_jax.workdir.paths import THETA0, absolute


def read_paper_values(path: epath.PathLike) -> dict[str, str]:
    """Reads a JSON object: method, as the tables name it -> the paper's value, a number or a text.

    Raises:
        ValueError: The file is missing or no such object, or names a method that does not exist.
    """
    try:
        content = json.loads(absolute(path).read_text())
    except FileNotFoundError:
        raise ValueError(f"--paper: there is no file {path}") from None
    except ValueError as error:
        raise ValueError(f"--paper: {path} is not valid JSON ({error})") from None
    if not isinstance(content, Mapping):
        raise ValueError(f'--paper: {path} is no JSON object; expected {{"METHOD": VALUE, ...}}')
    for name, value in content.items():
        if name != THETA0 and not any(re.fullmatch(pattern, parse(name)[0]) for pattern in METHODS):
            raise ValueError(f"--paper: {path}: unknown method {name!r}; write it as --methods does, or {THETA0}")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"--paper: {path}: {name}: expected a number or a text, got {value!r}")
    return {name: str(value) for name, value in content.items()}
