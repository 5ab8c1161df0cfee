"""Finds the file that `--config` names: one of the user's own, or one that is shipped."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from merit_jax import configs

SHIPPED = Path(configs.__file__).parent
"""Folder of the shipped config files."""


def with_files(words: Iterable[str]) -> Iterator[str]:
    """Yields the words of a command line with `--config=NAME[:ARG]` replaced by `--config=FILE[:ARG]`.

    Raises:
        ValueError: There is no file of that name.
    """
    waiting = False
    for word in words:
        given = re.fullmatch(r"(--?config=)(.*)", word, re.DOTALL)
        flag, name = given.groups() if given else ("", word)
        yield flag + find(name) if flag or waiting else word
        waiting = word in ("--config", "-config")


def find(name: str) -> str:
    """Returns the file of a config: itself, NAME.py in this folder, or NAME.py of the shipped ones.

    Args:
        name: A file, or a bare name, both with `:ARG` or without.

    Raises:
        ValueError: A bare name of neither.
    """
    bare, colon, argument = name.partition(":")
    if not re.fullmatch(r"\w+", bare):
        return name
    for file in (Path(f"{bare}.py"), SHIPPED / f"{bare}.py"):
        if file.is_file():
            return f"{file}{colon}{argument}"
    shipped = sorted(file.stem for file in SHIPPED.glob("*.py") if file.stem not in ("__init__", "common"))
    raise ValueError(
        f"--config={name}: this folder has no {bare}.py, and no config is shipped by that name; shipped are {', '.join(shipped)}"
    )
