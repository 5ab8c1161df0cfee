"""Generates the reference of all configuration keys from configs/common.py."""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Mapping
from typing import NamedTuple

from ml_collections import ConfigDict

from docs.generate.commands import cell
from merit_jax.configs import common
from merit_jax.configs.schema.diagnostics_keys import declare_diagnostics
from merit_jax.configs.schema.keys import Key, value_of
from merit_jax.configs.schema.pruning_keys import declare_pruning

INTRODUCTION = """# Configuration keys

A config is a Python file whose `get_config` starts from `configs/common.py` and sets what differs; the files in `configs/` are
examples. Any key can also be set on the command line, as `--config.train.learning_rate=2e-5`. Unknown keys are
refused, and so is a value out of its range, before anything is read.

Values keep the type of their default: a tuple is written `--config.baselines="('joint','random4')"`.

"""


class Row(NamedTuple):
    """A key or section of the reference.

    Attributes:
        name: As on the command line, without "config.": "train.epochs".
        key: As it is declared; None for a section.
        meaning: Its comment in `configs/common.py`.
    """

    name: str
    key: Key | None
    meaning: str


def rows() -> tuple[Row, ...]:
    """Reads all keys and sections, in the order of `configs/common.py`; the comment above each is its meaning."""
    declared = common.declared()
    found = []
    for function in (common.declared, declare_diagnostics, declare_pruning):
        found += _rows(inspect.getsource(function), declared)
    return tuple(found)


def _rows(source: str, declared: ConfigDict) -> list[Row]:
    """Reads the keys and sections that one function declares."""
    comments, found = _comments(source), []
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.Assign) and (name := ast.unparse(node.targets[0])).startswith("c."):
            value = value_of(declared, name[2:])
            found.append(Row(name[2:], value if isinstance(value, Key) else None, _above(comments, node.lineno)))
    return found


def _above(comments: Mapping[int, str], line: int) -> str:
    """Joins the comment lines directly above a line."""
    first = line
    while first - 1 in comments:
        first -= 1
    return " ".join(comments[number] for number in range(first, line))


def page() -> str:
    """Writes the page: a table of keys for each section, and the methods that an arg string names."""
    lines = [INTRODUCTION, "## Top level", "", *HEADER]
    for name, key, meaning in rows():
        if key is None:
            lines += ["", f"## {name}", "", *((f"{_sentence(meaning)}.", "") if meaning else ()), *HEADER]
        else:
            lines.append(f"| `{name}` | `{key.default!r}` | {cell(key.range.words)} | {cell(_sentence(meaning))} |")
    return "\n".join([*lines, "", *_methods()]) + "\n"


HEADER = ("| key | default | values | meaning |", "|---|---|---|---|")


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _sentence(text: str) -> str:
    """Capitalises a comment, unless it begins with a symbol such as "n:" or "theta0"."""
    word = re.match(r"\w*", text)[0]
    return text[0].upper() + text[1:] if word.isalpha() and len(word) > 1 else text


def _methods() -> list[str]:
    rows = [
        f"| `{_spelt(pattern)}` | `{method.partition}` | `{method.merge}` | `{method.similarity}` | `{method.centring}` |"
        for pattern, method in common.METHODS.items()
    ]
    return [
        "## Methods",
        "",
        "A method is the word after a config file's colon, or an entry of `baselines`. It sets four keys and the number of",
        "branches: K is that number, and R halvings make 2^R. What each is for: [which method](../concepts/which_method.md).",
        "",
        "| method | `partition.method` | `merge.method` | `conflict.similarity` | `conflict.centring` |",
        "|---|---|---|---|---|",
        *rows,
    ]


def _spelt(pattern: str) -> str:
    """Writes the pattern of an arg string with K and R for its numbers."""
    return pattern.replace(r"(\d+)", "K").replace(r"(\d)", "R")
